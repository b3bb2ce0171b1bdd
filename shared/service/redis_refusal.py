"""A Redis that refuses a connection sends the reason and closes it. redis-py writes first and loses
the reason.

Protected mode and `maxclients` refuse this way. The handshake here reads the reason and raises it.
"""

import asyncio
import contextlib

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

_TIMEOUT = 1.0  # seconds; a server that refuses sends the reason at once, others send nothing

_REMEDIES = {
    "DENIED": "set a password (`requirepass` there, `redis://:PASSWORD@HOST:PORT` in "
    "WEBHOOK_REDIS_URL), or set `protected-mode no` if nothing else reaches its network",
    "ERR max number of clients": "raise its `maxclients`, or stop clients that are not needed",
}


class RefusedConnectionError(RedisConnectionError):
    """Redis closed a connection before any command; `words` is the first sentence it sent."""

    def __init__(self, words: str) -> None:
        super().__init__(f"{words}: {_remedy(words)}")
        self.words = words

    @property
    def is_lasting(self) -> bool:
        """Whether only the operator can change it, so that waiting does not help."""
        return self.words.startswith("DENIED")


async def handshake(connection: AbstractConnection) -> None:
    """Do redis-py's handshake.

    Raises RefusedConnectionError if the server refused and gave a reason.
    """
    try:
        await connection.on_connect()
    except ResponseError as error:  # the reason is the reply to AUTH
        if str(error).startswith("DENIED"):
            raise RefusedConnectionError(_first_sentence(str(error))) from error
        raise
    except RedisConnectionError as error:
        # A subclass, such as AuthenticationError, already has the reason.
        if type(error) is RedisConnectionError and (words := await _words(connection)):
            raise RefusedConnectionError(words) from error
        raise


async def _words(connection: AbstractConnection) -> str:
    """Connect again without writing, and return the server's first sentence; empty if silent.

    The reason on the first connection may be lost: a write to a closed socket resets it, and the
    kernel then drops what had arrived.
    """
    if not isinstance(connection, Connection):
        return ""  # a Unix socket
    context = connection.ssl_context.get() if isinstance(connection, SSLConnection) else None
    # ValueError: a line without an end.
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(
                connection.host, connection.port, ssl=context
            )
            with contextlib.closing(writer):
                line = await reader.readline()
        if line.startswith(b"-"):
            return _first_sentence(line[1:].decode(errors="replace").strip())
    return ""


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0]


def _remedy(words: str) -> str:
    return next(
        (remedy for start, remedy in _REMEDIES.items() if words.startswith(start)),
        "check the log of Redis",
    )
