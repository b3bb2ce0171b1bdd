"""A failover of Redis or Postgres: clients with open connections find the new primary."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, RedisError

from local.ports import free_port
from local.redis import find_redis_server
from shared.service.clients import (
    check_redis,
    is_postgres_unavailable,
    is_redis_unavailable,
    postgres_pool,
    redis_command,
)
from shared.service.errors import ConfigurationError, DependencyError
from tests.support.stage_harness import Servers
from tests.support.waiting import wait_until
from tests.torture.proxy import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "127.0.0.1"


class RedisServer:
    """A server process of its own, which a test may demote, promote and kill."""

    def __init__(self, directory: Path, sentinel: Path | None = None, *options: str) -> None:
        """With `sentinel`, a configuration file, the server is a sentinel."""
        self.port = free_port()
        directory.mkdir()
        first = [sentinel] if sentinel else []
        last = ["--sentinel"] if sentinel else ["--save", "", "--repl-diskless-sync-delay", "0"]
        self.process = subprocess.Popen(
            [find_redis_server(None), *first, "--port", str(self.port), "--bind", HOST, "--dir", directory, *options,
             *last],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ready(self) -> None:
        async with redis_command(self.url) as client:
            await wait_until(lambda: _answers(client), timeout=20, description="Redis answers")


async def _answers(client: Redis) -> bool:
    with contextlib.suppress(RedisError, OSError):
        return bool(await client.ping())
    return False


async def _writes(client: Redis) -> bool:
    try:
        return bool(await client.set("key", "value"))
    except Exception as error:
        if not is_redis_unavailable(error):
            raise
        return False


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    servers = RedisServer(tmp_path / "a"), RedisServer(tmp_path / "b")
    yield servers
    for server in servers:
        server.end()


@pytest_asyncio.fixture(loop_scope="session")
async def switched(pair: tuple[RedisServer, RedisServer]) -> AsyncIterator[Proxy]:
    """A Service whose connections stay open while new ones go elsewhere."""
    proxy = Proxy(HOST, pair[0].port, seed=1)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def test_open_connections_to_a_demoted_redis_are_closed(
    pair: tuple[RedisServer, RedisServer], switched: Proxy
) -> None:
    old, new = pair
    await asyncio.gather(old.ready(), new.ready())
    async with (
        redis_command(f"redis://{HOST}:{switched.port}/0") as client,
        redis_command(old.url) as admin,
    ):
        await asyncio.gather(
            *(client.set("key", str(number)) for number in range(8))
        )  # fills the pool
        switched.lead_to(HOST, new.port)
        await admin.replicaof(HOST, new.port)
        with pytest.raises(ReadOnlyError):
            await client.set("key", "refused")
        assert await client.set("key", "taken")
        async with redis_command(new.url) as reader:
            assert await reader.get("key") == b"taken"


async def test_sentinel_leads_to_the_promoted_replica(
    pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    primary, replica = pair
    await asyncio.gather(primary.ready(), replica.ready())
    async with redis_command(replica.url) as admin:
        await admin.replicaof(HOST, primary.port)
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor documents {HOST} {primary.port} 1\n"
        "sentinel down-after-milliseconds documents 500\nsentinel failover-timeout documents 2000\n"
    )
    sentinel = RedisServer(tmp_path / "sentinel", configuration)
    try:
        nobody = free_port()
        url = f"redis+sentinel://{HOST}:{nobody},{HOST}:{sentinel.port}/documents/0"
        async with redis_command(url) as client:
            await wait_until(
                lambda: _writes(client), timeout=20, description="a write through Sentinel"
            )
            await wait_until(
                lambda: _has_replica(client), timeout=20, description="the replica is in step"
            )
            primary.process.send_signal(signal.SIGKILL)
            await wait_until(
                lambda: _writes(client), timeout=30, description="a write to the promoted replica"
            )
            async with redis_command(replica.url) as reader:
                assert (await reader.info("replication"))["role"] == "master"
    finally:
        sentinel.end()


async def _has_replica(client: Redis) -> bool:
    """Whether the replica is in step and Sentinel has had time to see it."""
    info = await client.info("replication")
    return bool(
        info["connected_slaves"] == 1
        and info["slave0"]["state"] == "online"
        and info["slave0"]["offset"] > 1000
    )


async def test_a_replica_and_a_cluster_node_are_refused_at_the_start(
    pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    await asyncio.gather(*(server.ready() for server in pair))
    async with redis_command(pair[0].url) as client:
        await client.replicaof(HOST, pair[1].port)
        with pytest.raises(ConfigurationError, match="it is a replica"):
            await check_redis(client)
    node = RedisServer(
        tmp_path / "node", None, "--cluster-enabled", "yes", "--maxmemory-policy", "noeviction"
    )
    try:
        await node.ready()
        async with redis_command(node.url) as client:
            with pytest.raises(ConfigurationError, match="Redis Cluster is not supported"):
                await check_redis(client)
    finally:
        node.end()


async def test_a_connection_to_a_read_only_postgres_is_closed(servers: Servers) -> None:
    pool = await postgres_pool(servers.database_url, name="failover", max_size=1)
    try:
        await pool.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
        )  # as a demoted server's are
        with pytest.raises(DependencyError, match="ReadOnlySQLTransactionError"):
            await pool.execute("CREATE TABLE refused ()")
        await pool.execute("CREATE TEMPORARY TABLE taken ()")
    finally:
        await pool.close()


async def test_a_transaction_on_a_read_only_postgres_closes_its_connection(
    servers: Servers,
) -> None:
    pool = await postgres_pool(servers.database_url, name="failover", max_size=1)
    try:
        async with pool.acquire() as connection:
            await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.fetchval("SELECT nextval('webhook.release_number')")
        assert await pool.fetchval("SHOW transaction_read_only") == "off"
    finally:
        await pool.close()


async def test_a_connection_that_the_server_ended_counts_as_unavailable(servers: Servers) -> None:
    async with servers.pool.acquire() as connection:
        me = await connection.fetchval("SELECT pg_backend_pid()")
        await servers.pool.execute("SELECT pg_terminate_backend($1)", me)
        await wait_until(
            lambda: _is_lost(connection), timeout=15, description="the pool closes the connection"
        )
        with pytest.raises(asyncpg.InterfaceError) as failure:
            await connection.execute("SELECT 1")
        assert is_postgres_unavailable(failure.value)


def _is_lost(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True
