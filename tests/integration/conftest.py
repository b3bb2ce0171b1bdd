"""What the integration tests share: bare Redis and Postgres, and a Qdrant."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from cli.commands.serve import apply_migrations
from indexer.keyword import KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import ensure_collection
from local.stack import Stack
from shared.jobs.migrate import deployment_of
from shared.runtime.streams.deployment import Deployment
from shared.service.clients import postgres_pool, redis_command
from tests.support.documents import DIMENSION
from tests.support.local_stack import bare_environ, enterable_directory
from tests.support.qdrant_process import running_qdrant
from tests.support.stage_harness import TARGET, Servers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_and_postgres() -> AsyncIterator[Servers]:
    with enterable_directory() as directory:
        async with Stack(
            directory / "stack", bare_environ(), parts=("redis", "postgres"), restart_delay=None
        ) as stack:
            url = stack.environment["WEBHOOK_DATABASE_URL"]
            await apply_migrations(url)
            pool = await postgres_pool(url, name="test")
            redis = redis_command(stack.environment["WEBHOOK_REDIS_URL"])
            deployment = Deployment(redis, await deployment_of(pool))
            yield Servers(stack.environment["WEBHOOK_REDIS_URL"], redis, url, pool, deployment)
            await redis.aclose()
            await pool.close()


@pytest_asyncio.fixture(loop_scope="session")
async def servers(redis_and_postgres: Servers) -> Servers:
    """Redis and Postgres, empty."""
    await redis_and_postgres.redis.flushall()
    tables = await redis_and_postgres.pool.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname = 'webhook' AND tablename NOT IN ('schema_migrations')"
    )
    await redis_and_postgres.pool.execute(f"TRUNCATE {', '.join(row['name'] for row in tables)}")
    return redis_and_postgres


@pytest_asyncio.fixture(loop_scope="session")
async def qdrant(tmp_path: Path) -> AsyncIterator[AsyncQdrantClient]:
    """A client of a server of its own with one collection, which is empty."""
    with running_qdrant(tmp_path / "data") as settings:
        client = make_client(settings)
        await ensure_collection(
            client,
            TARGET,
            dimension=DIMENSION,
            generation=str(uuid.uuid4()),
            keyword=KeywordParameters(),
        )
        yield client
        await client.close()
