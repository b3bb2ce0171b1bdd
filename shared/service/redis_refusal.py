"""A Redis that refuses a connection says why and closes it. redis-py writes first and loses that.

Protected mode and `maxclients` refuse this way. The handshake here reads the words and raises them.
"""

import asyncio
import contextlib

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

_TIMEOUT = 1.0  # seconds; a server that refuses speaks at once, others stay silent

_REMEDIES = {
    "DENIED": "set a password (`requirepass` there, `redis://:PASSWORD@HOST:PORT` in "
    "WEBHOOK_REDIS_URL), or set `protected-mode no` if no one else reaches its network",
    "ERR max number of clients": "raise its `maxclients`, or stop clients that are not needed",
}


class RefusedConnectionError(RedisConnectionError):
    """Redis closed a connection before any command; `words` is the first sentence it said."""

    def __init__(self, words: str) -> None:
        super().__init__(f"{words}: {_remedy(words)}")
        self.words = words

    @property
    def is_lasting(self) -> bool:
        """Whether waiting does not help: only its operator can change it."""
        return self.words.startswith("DENIED")


async def introduce(connection: AbstractConnection) -> None:
    """Do redis-py's handshake. Raises RefusedConnectionError if the server refused and said why."""
    try:
        await connection.on_connect()
    except ResponseError as error:  # the words came as the answer to AUTH
        if str(error).startswith("DENIED"):
            raise RefusedConnectionError(_first_sentence(str(error))) from error
        raise
    except RedisConnectionError as error:
        # A subclass, such as AuthenticationError, is an answer already.
        if type(error) is RedisConnectionError and (words := await _words(connection)):
            raise RefusedConnectionError(words) from error
        raise


async def _words(connection: AbstractConnection) -> str:
    """Connect again without writing, and return the server's first sentence; empty if silent.

    The words of the first connection may be gone: a write to a closed socket resets it, and the
    kernel then drops what had arrived.
    """
    if not isinstance(connection, Connection):
        return ""  # a Unix socket
    context = connection.ssl_context.get() if isinstance(connection, SSLConnection) else None
    with contextlib.suppress(OSError, TimeoutError, ValueError):  # ValueError: a line without an end
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(connection.host, connection.port, ssl=context)
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
        "look at its log",
    )
