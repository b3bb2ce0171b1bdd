"""Two deployments, each with its own Postgres, on one Redis: the second one touches nothing."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from cli.commands.serve import apply_migrations
from ingest.dispatch.dispatcher import RefusedReleaseError
from shared.jobs.migrate import deployment_of
from shared.pipeline.outcomes import Done, ItemState, Outcome
from shared.pipeline.stages import OWNER, StageName
from shared.runtime.stage import Document
from shared.runtime.streams.deployment import Deployment
from shared.service.clients import postgres_pool, redis_command
from shared.service.errors import ForeignRedisError
from tests.support.refusal import refusal
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    depth,
    make_dispatcher,
    release_all,
    running_worker,
    states,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def database(servers: Servers, template: str = "template1") -> AsyncIterator[str]:
    """Another database on the same server; its URL."""
    name = f"other_{uuid.uuid4().hex}"
    await servers.pool.execute(f"CREATE DATABASE {name} TEMPLATE {template}", timeout=60)
    try:
        yield urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    finally:
        await servers.pool.execute(f"DROP DATABASE {name} WITH (FORCE)", timeout=60)


@contextlib.asynccontextmanager
async def deployment(servers: Servers, url: str) -> AsyncIterator[Servers]:
    """The deployment of a database, on the same Redis."""
    pool = await postgres_pool(url, name="test")
    try:
        one = Deployment(servers.redis, await deployment_of(pool))
        yield Servers(servers.redis_url, servers.redis, url, pool, one)
    finally:
        await pool.close()


@pytest_asyncio.fixture(loop_scope="session")
async def other(servers: Servers) -> AsyncIterator[Servers]:
    async with database(servers) as url:
        await apply_migrations(url)
        async with deployment(servers, url) as other:
            yield other


async def wipe(servers: Servers) -> None:
    """Empty Redis and let the deployment claim it, in one step."""
    pipeline = servers.redis.pipeline(transaction=True)
    pipeline.flushall()
    pipeline.set(OWNER, servers.deployment.id)
    await pipeline.execute()


async def are_indexed(servers: Servers, job: str) -> bool:
    return set(await states(servers, job)) == {"indexed"}


async def handle(_: Document) -> Outcome:
    return Done(ItemState.INDEXED)


@pytest.mark.parametrize("module", ["ingest", "chunker"])
async def test_a_second_deployment_does_not_start(
    servers: Servers, other: Servers, module: str
) -> None:
    await servers.deployment.claim()
    reason = await refusal(
        servers, module, WEBHOOK_DATABASE_URL=other.database_url, WEBHOOK_TEST_MODE="true"
    )
    assert "belong to another deployment" in reason
    assert "WEBHOOK_REDIS_URL" in reason
    assert f"DEL '{OWNER}'" in reason


async def test_a_stage_that_runs_ends_no_entry_of_another_deployment(
    servers: Servers, other: Servers
) -> None:
    await other.deployment.claim()
    await release_all(other)
    async with running_worker(other, handle, consumer="other"):
        await wipe(servers)
        jobs = []
        async with running_worker(servers, handle):
            for _ in range(20):
                jobs.append(await accept_documents(servers, 4))
                await release_all(servers)
            for job in jobs:
                await wait_until(
                    partial(are_indexed, servers, job), description="all documents of the job"
                )


async def test_a_dispatcher_publishes_nothing_for_another_deployment(
    servers: Servers, other: Servers
) -> None:
    job = await accept_documents(other, 3)
    dispatcher = make_dispatcher(other)
    await dispatcher.check_marker()
    await wipe(servers)
    with pytest.raises(RefusedReleaseError, match="another deployment"):
        await dispatcher.release_some()
    assert await depth(servers, StageName.CHUNKER) == 0
    assert await states(other, job) == ["queued"] * 3
    with pytest.raises(ForeignRedisError):
        await dispatcher.check_marker()


async def test_an_empty_redis_belongs_to_the_first_that_comes(
    servers: Servers, other: Servers
) -> None:
    await servers.deployment.claim()
    await servers.redis.flushall()
    await accept_documents(other, 1)
    await release_all(other)
    with pytest.raises(ForeignRedisError):
        await servers.deployment.claim()
    await servers.redis.delete(OWNER)  # the remedy
    await servers.deployment.claim()


async def test_a_database_number_of_its_own_is_a_redis_of_its_own(
    servers: Servers, other: Servers
) -> None:
    await servers.deployment.claim()
    url = urlsplit(servers.redis_url)._replace(path="/1").geturl()
    async with redis_command(url) as redis:
        await Deployment(redis, other.deployment.id).claim()
        assert await redis.get(OWNER) == other.deployment.id.encode()
    await servers.deployment.claim()


async def test_a_restored_database_is_the_same_deployment(servers: Servers) -> None:
    async with database(servers) as url:
        await apply_migrations(url)
        async with deployment(servers, url) as original:
            await original.deployment.claim()
        async with (
            database(servers, template=urlsplit(url).path.removeprefix("/")) as restored_url,
            deployment(servers, restored_url) as restored,
        ):
            assert restored.deployment.id == original.deployment.id
            await restored.deployment.claim()
