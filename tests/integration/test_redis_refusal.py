"""What users read when Redis refuses a connection: its own words, and what to do."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from local.outside import check_outside
from shared.service.clients import check_redis, redis_command
from shared.service.errors import ConfigurationError
from shared.service.redis_refusal import RefusedConnectionError
from tests.support.local_stack import bare_environ
from tests.support.refusing_redis import refusing_redis
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.timeout(60)

PROTECTED = (
    "DENIED Running in protected mode because protected mode is enabled and no password is set for "
    "the default user: set a password"
)
PATIENCE = (
    3600.0  # a check that waited for a lasting refusal would exceed the test's own time limit
)


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    client = redis_command(url)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    "credentials", ["", ":a-password@"], ids=["without a password", "with a password"]
)
async def test_protected_mode_stops_the_start_at_once_with_the_servers_words(
    credentials: str,
) -> None:
    async with refusing_redis() as url, client_of(url.replace("//", f"//{credentials}")) as client:
        with pytest.raises(ConfigurationError) as error:
            await check_redis(client, PATIENCE)
    assert str(error.value).startswith(f"Redis refuses connections: {PROTECTED}")
    assert "In this mode" not in str(error.value)  # the first of five sentences is enough


@pytest.mark.asyncio(loop_scope="session")
async def test_a_password_that_the_server_does_not_take_stops_the_start_at_once(
    servers: Servers,
) -> None:
    async with client_of(re.sub("//.*@", "//:a-password@", servers.redis_url)) as client:
        with pytest.raises(
            ConfigurationError, match=r"invalid username-password pair .* check WEBHOOK_REDIS_URL"
        ):
            await check_redis(client, PATIENCE)


async def test_every_command_carries_the_servers_words() -> None:
    async with refusing_redis() as url, client_of(url) as client:
        for _ in range(20):  # without them each attempt may fail in another way
            with pytest.raises(RefusedConnectionError, match="DENIED Running in protected mode"):
                await client.ping()


async def test_a_server_that_closes_without_a_word_is_no_refusal() -> None:
    async with refusing_redis(b"") as url, client_of(url) as client:
        with pytest.raises(RedisConnectionError) as error:
            await client.ping()
    assert not isinstance(error.value, RefusedConnectionError)


async def test_millstream_up_names_the_reason_of_a_server_outside() -> None:
    async with refusing_redis() as url:
        with pytest.raises(ConfigurationError, match=PROTECTED):
            await check_outside("redis", bare_environ(WEBHOOK_REDIS_URL=url))


@pytest.mark.asyncio(loop_scope="session")
async def test_a_real_server_with_too_many_clients_is_waited_for(servers: Servers) -> None:
    limit = str((await servers.redis.config_get("maxclients"))["maxclients"])
    connected = int((await servers.redis.info("clients"))["connected_clients"])
    await servers.redis.config_set("maxclients", connected)
    try:
        async with client_of(servers.redis_url) as client:
            with pytest.raises(
                RefusedConnectionError,
                match="max number of clients reached: raise its `maxclients`",
            ):
                await client.ping()
            checking = asyncio.create_task(check_redis(client, 30.0))
            await servers.redis.config_set("maxclients", limit)
            await checking
    finally:
        await servers.redis.config_set("maxclients", limit)
