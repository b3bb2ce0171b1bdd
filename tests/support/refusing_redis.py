"""A stand-in for a Redis in protected mode: it gives its reason and closes the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

# What Redis 7.0 and Valkey 9.1 send; the middle of the text is left out.
DENIED = (
    b"-DENIED Running in protected mode because protected mode is enabled and no password is set "
    b"for the default user. In this mode connections are only accepted from the loopback "
    b"interface. If you want to connect from external computers, you may adopt one of the "
    b"following solutions: 1) Just disable protected mode [...] "
    b"4) Set up an authentication password for the default user.\r\n"
)


@contextlib.asynccontextmanager
async def refusing_redis(answer: bytes = DENIED) -> AsyncIterator[str]:
    """Yields the URL of a server that sends `answer` to every new connection and closes it."""

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
