"""What the fleet keeps running: a command, where it answers, and how to see that it does."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from local.process import Command, Probe

LOOPBACK = "127.0.0.1"

_PROBE_TIMEOUT = 2.0  # seconds; a probe that hangs is one that said no


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A server or one replica of a service."""

    service: str  # redis, postgres, tei, qdrant, ingest, chunker, embedder or indexer
    replica: int = 1
    url: str
    command: Command
    is_ready: Probe
    start_timeout: float = 30.0  # seconds until `is_ready` must have said yes
    prepare: Callable[[], Awaitable[None]] | None = None  # awaited before every start of the command


def http_probe(url: str) -> Probe:
    """Whether a GET of `url` is answered with 200."""

    async def is_ready() -> bool:
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    return is_ready


async def first_line(port: int, request: bytes) -> bytes:
    """The first line that a local server answers to `request`, or nothing if it does not answer."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
