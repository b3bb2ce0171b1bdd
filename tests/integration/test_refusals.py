"""What a service does not start on: it says the remedy and ends with the status for configuration
errors.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from shared.jobs.targets import Targets
from tests.support.documents import COLLECTION
from tests.support.refusal import refusal
from tests.support.stage_harness import Servers
from tests.support.tei_stand_in import StandInSettings, TeiStandIn

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def old_redis(version: str) -> AsyncIterator[str]:
    """A server that says it is an old Redis, whatever it is asked; its URL."""
    info = f"redis_version:{version}\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.strip().upper() == b"INFO":
                writer.write(b"$%d\r\n%s\r\n" % (len(info), info))
            elif line.strip().upper() in {b"CLIENT", b"HELLO", b"SELECT"}:
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def test_a_redis_that_evicts_keys(servers: Servers) -> None:
    await servers.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "CONFIG SET maxmemory-policy noeviction" in await refusal(servers)
    finally:
        await servers.redis.config_set("maxmemory-policy", "noeviction")


async def test_a_redis_that_is_too_old(servers: Servers) -> None:
    async with old_redis("6.2.14") as url:
        reason = await refusal(servers, WEBHOOK_REDIS_URL=url)
    assert "Redis 6.2.14 is too old: upgrade it to 7.0" in reason


async def test_a_database_without_the_schema(servers: Servers) -> None:
    name = f"empty_{uuid.uuid4().hex}"
    await servers.pool.execute(f"CREATE DATABASE {name}", timeout=60)
    try:
        url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
        assert "run `millstream migrate`" in await refusal(servers, WEBHOOK_DATABASE_URL=url)
    finally:
        await servers.pool.execute(f"DROP DATABASE {name}", timeout=60)


async def test_a_database_with_a_newer_schema(servers: Servers) -> None:
    await servers.pool.execute(
        "INSERT INTO webhook.schema_migrations (version, name) VALUES (9999, 'later')"
    )
    try:
        assert "upgrade millstream" in await refusal(servers)
    finally:
        await servers.pool.execute("DELETE FROM webhook.schema_migrations WHERE version = 9999")


async def test_a_tei_of_another_dimension_than_the_collections(servers: Servers) -> None:
    targets = Targets(servers.pool)
    await targets.ensure(COLLECTION)
    await targets.settle(f"{COLLECTION}_1", "the model of before", 384)
    async with TeiStandIn(StandInSettings(dimension=8)) as tei:
        reason = await refusal(servers, "embedder", WEBHOOK_TEI_URL=tei.url)
    assert (
        "(8 dimensions), but docs holds vectors of the model of before (384 dimensions)" in reason
    )
    assert "point WEBHOOK_TEI_URL to that model" in reason


async def test_a_setting_that_does_not_exist(servers: Servers) -> None:
    assert "did you mean WEBHOOK_CHUNK_OVERLAP_TOKENS" in await refusal(
        servers, WEBHOOK_CHUNK_OVERLAP_TOKEN="1"
    )


async def test_a_key_that_receivers_of_callbacks_share_with_senders_of_webhooks(
    servers: Servers,
) -> None:
    keys = {"WEBHOOK_SECRET": "s" * 32, "WEBHOOK_CALLBACK_SECRET": "s" * 32}
    reason = await refusal(servers, "ingest", WEBHOOK_API_SECRET="a" * 32, **keys)
    assert "WEBHOOK_CALLBACK_SECRET is equal to WEBHOOK_SECRET: set another value" in reason
