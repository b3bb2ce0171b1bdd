"""Connections to Redis and Postgres, with the timeouts that a stream consumer needs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import asyncpg
import msgspec
import stamina
from asyncpg.connection import LoggedQuery
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, MasterDownError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from shared.service.errors import ConfigurationError, DependencyError, is_refusing_writes
from shared.service.redis_refusal import RefusedConnectionError, handshake
from shared.service.redis_sentinel import is_sentinel_url, sentinel_pool

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

READ_BLOCK = 1.0  # seconds that one XREADGROUP waits for an entry
# Longer than the block, or an empty stream would look like a dead server.
_READER_TIMEOUT = READ_BLOCK + 4.0
_COMMAND_TIMEOUT = 5.0
_MIN_REDIS_VERSION = 7
_POSTGRES_CONNECT_TIMEOUT = 5.0
_POSTGRES_ACQUIRE_TIMEOUT = 5.0
_POSTGRES_COMMAND_TIMEOUT = 15.0


def redis_reader(url: str) -> Redis:
    """Return the client for blocking reads.

    It never retries: Redis has delivered a read even if the reply was lost.
    """
    return _redis(url, _READER_TIMEOUT, max_connections=4)


def redis_command(url: str) -> Redis:
    """Return the client for all other commands.

    It never retries: Redis has done an XADD even if the reply was lost.
    """
    return _redis(url, _COMMAND_TIMEOUT, max_connections=64)


class TimedRedis(Redis):
    """A client that bounds each command itself, and raises TimeoutError (an OSError).

    With redis-py's `socket_timeout` every write goes through `asyncio.wait_for`. On Python 3.11
    that loses a cancellation that arrives after a finished write: half of all cancelled commands
    continued (measured), and so did services that were told to stop.
    """

    command_timeout = _COMMAND_TIMEOUT

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with asyncio.timeout(self.command_timeout), _leaving_demoted(self.connection_pool):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "TimedPipeline":
        made = TimedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.command_timeout = self.command_timeout
        return made


class TimedPipeline(Pipeline):
    """A pipeline that is bounded as a whole."""

    command_timeout = _COMMAND_TIMEOUT

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        async with asyncio.timeout(self.command_timeout), _leaving_demoted(self.connection_pool):
            answers: list[Any] = await super().execute(raise_on_error)
            return answers


@contextlib.asynccontextmanager
async def _leaving_demoted(pool: ConnectionPool) -> AsyncIterator[None]:
    """Close the idle connections of the pool when the server is no longer the primary.

    A connection that stays open through a failover still leads to the demoted server. A new one
    leads to the current primary, through a DNS name, a Kubernetes Service or Sentinel.
    """
    try:
        yield
    except (ReadOnlyError, MasterDownError):
        await pool.disconnect(inuse_connections=False)
        raise


def _redis(url: str, timeout: float, max_connections: int) -> Redis:
    options: dict[str, Any] = {
        "protocol": 2,  # the same reply format on every server
        "socket_timeout": None,
        "socket_connect_timeout": 3.0,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": max_connections,
        "redis_connect_func": handshake,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # unknown to Valkey
    }
    pool = (
        sentinel_pool(url, options)
        if is_sentinel_url(url)
        else ConnectionPool.from_url(url, **options)
    )
    client = TimedRedis.from_pool(pool)
    assert isinstance(client, TimedRedis)
    client.command_timeout = timeout
    return client


async def check_redis(redis: Redis, patience: float = 0.0) -> None:
    """Raise ConfigurationError for a server that is unsuitable, or unavailable for `patience` s.

    Unsuitable is a server that is too old, evicts keys, is a replica or a node of a cluster. A
    server that refuses the password, or any password, fails at once.
    """
    try:
        info: Any = None
        async for attempt in stamina.retry_context(
            on=_may_pass, attempts=None, timeout=max(patience, 0.001), wait_max=2.0
        ):
            with attempt:
                info = await redis.info()
                if info["role"] != "master":
                    raise ReadOnlyError("it is a replica")  # a failover may promote it soon
    except RefusedConnectionError as error:
        raise ConfigurationError(f"Redis refuses connections: {error}") from error
    except (RedisError, OSError) as error:
        raise ConfigurationError(
            f"Redis cannot be reached ({error}): check WEBHOOK_REDIS_URL"
        ) from error
    if info.get("cluster_enabled"):
        raise ConfigurationError(
            "Redis Cluster is not supported: all streams are in one hash slot, so that one node "
            "would do all the work. Point WEBHOOK_REDIS_URL to a single primary, or to Sentinel "
            "(redis+sentinel://)"
        )
    version = str(info["redis_version"])  # Valkey says here which Redis it is compatible with
    if int(version.partition(".")[0]) < _MIN_REDIS_VERSION:
        raise ConfigurationError(
            f"Redis {version} is too old: upgrade it to {_MIN_REDIS_VERSION}.0 or later, or to "
            "Valkey, or point WEBHOOK_REDIS_URL to one that is"
        )
    policy = info["maxmemory_policy"]
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis has maxmemory-policy {policy}, which deletes whole streams when memory is "
            "short: "
            "`redis-cli CONFIG SET maxmemory-policy noeviction`, and the same in its configuration "
            "file"
        )


def _may_pass(error: Exception) -> bool:
    """Return whether the server may answer soon."""
    if isinstance(error, RefusedConnectionError):
        return not error.is_lasting
    return isinstance(error, RedisError | OSError) and not isinstance(error, AuthenticationError)


class _PooledConnection(asyncpg.Connection):
    """Returns to the pool without a statement that resets it.

    That statement would double the round trips of most calls. An open transaction is still rolled
    back. Nothing in millstream changes a session after `_SESSION`.
    """

    def get_reset_query(self) -> str:
        return ""


class PostgresPool(asyncpg.Pool):
    """A pool whose calls raise DependencyError when Postgres is unavailable or frozen.

    An acquired connection raises asyncpg's own errors; `is_postgres_unavailable` recognises both.
    """

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=_POSTGRES_ACQUIRE_TIMEOUT if timeout is None else timeout)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        with postgres_errors():
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        with postgres_errors():
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        with postgres_errors():
            return await super().fetchval(query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        with postgres_errors():
            return await super().execute(query, *args, **options)


@contextlib.contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn errors of the connection and the server into DependencyError.

    Errors of the statement stay.
    """
    try:
        yield
    except Exception as error:
        if is_postgres_unavailable(error):
            raise DependencyError("postgres", f"{type(error).__name__}: {error}") from error
        raise


# A client that is frozen or cut off must not keep its locks: the server ends its transaction
# after 15 s, and its connection after about 25 s. They are not sent with the connect, where a
# pooler refuses settings that it does not know.
_SESSION = """
SET idle_in_transaction_session_timeout = '15s';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '15s';
"""


async def postgres_pool(url: str, *, name: str, max_size: int = 10) -> PostgresPool:
    """Open a pool. `name` shows in pg_stat_activity.

    Raises OSError or asyncpg errors if it cannot connect.
    """

    async def leave_demoted(query: LoggedQuery) -> None:
        # Open connections survive a failover. New ones lead to the current primary.
        if isinstance(query.exception, asyncpg.ReadOnlySQLTransactionError):
            await pool.expire_connections()

    async def prepare(connection: Any) -> None:
        await use_json_codec(connection)
        await connection.execute(_SESSION)
        connection.add_query_logger(leave_demoted)

    pool = PostgresPool(
        postgres_dsn(url),
        min_size=1,
        max_size=max_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        setup=None,
        init=prepare,
        reset=None,
        loop=None,
        connection_class=_PooledConnection,
        record_class=asyncpg.Record,
        connect=None,
        timeout=_POSTGRES_CONNECT_TIMEOUT,
        command_timeout=_POSTGRES_COMMAND_TIMEOUT,
        server_settings={"application_name": f"millstream-{name}"},
    )
    return await pool


def postgres_dsn(url: str) -> str:
    """Return the URL as asyncpg accepts it, without the `+asyncpg` of SQLAlchemy."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


async def use_json_codec(connection: Any) -> None:
    """Convert jsonb columns to and from Python values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        # The only one that COPY supports; the leading byte is the version of the binary form.
        format="binary",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
    )


def is_postgres_unavailable(error: BaseException) -> bool:
    """Return whether the statement may be tried again.

    That is so if the server or the network failed, not the statement.
    """
    if isinstance(error, DependencyError):
        return error.service == "postgres"
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or _RELEASED in str(error)
    if isinstance(error, asyncpg.InternalClientError):
        return _SERVER_IS_CLOSING in str(error)
    return isinstance(error, _UNAVAILABLE)


# The pool releases a lost connection even while a caller holds it, and this is then the error of
# the caller.
_RELEASED = "released back to the pool"

# Between the server's last message and the end of the connection, asyncpg refuses a new statement
# with "cannot switch to state 15; another operation (2) is in progress": 2 is
# PROTOCOL_ERROR_CONSUME of its coreproto.pxd.
_SERVER_IS_CLOSING = "another operation (2)"

_UNAVAILABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,  # shutdown, crash recovery, cancelled by an administrator
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.PostgresIOError,  # a failing disk
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary whose disk is full
    # Deadlock and serialisation: the same statement succeeds later.
    asyncpg.TransactionRollbackError,
)


def is_redis_unavailable(error: BaseException) -> bool:
    """Return whether the command may be tried again.

    That is so if the server or the network failed, or the server refuses writes.
    """
    return isinstance(
        error, RedisConnectionError | RedisTimeoutError | OSError
    ) or is_refusing_writes(error)
