"""What the fleet keeps running: a command, its port, and how to tell that it is ready."""

from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import msgspec

from local.process import Command, Probe

LOOPBACK = "127.0.0.1"

PROBE_TIMEOUT = 2.0  # seconds; a probe without a response by then has failed

# Whether the process with this pid is ready. A response alone does not show that: another process
# may have taken the port first.
OwnProbe = Callable[[int], Awaitable[bool]]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A server or one replica of a service."""

    service: str  # redis, postgres, tei, qdrant, ingest, chunker, embedder or indexer
    replica: int = 1
    port: int
    url: str
    command: Command
    is_ready: OwnProbe
    start_timeout: float = 30.0  # seconds from the start until it must be ready
    prepare: Callable[[], Awaitable[None]] | None = None  # awaited before every start


def http_probe(url: str, headers: Mapping[str, str] | None = None) -> Probe:
    """Whether a GET of `url` has the status 200."""

    async def is_ready() -> bool:
        return await _get(url, headers) is not None

    return is_ready


def service_probe(url: str) -> OwnProbe:
    """Whether the service at `url` is ready and is this process, by the instance id it tells."""

    async def is_ready(pid: int) -> bool:
        body = await _get(f"{url}/readyz")
        return body is not None and _pid_of(body) == pid

    return is_ready


class _Readiness(msgspec.Struct):
    instance: str  # host:pid:boot id


def _pid_of(body: bytes) -> int | None:
    try:
        return int(msgspec.json.decode(body, type=_Readiness).instance.split(":")[-2])
    except (msgspec.DecodeError, ValueError, IndexError):
        return None


async def _get(url: str, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The body of a response with status 200."""
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers) as response,
        ):
            return await response.read() if response.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
