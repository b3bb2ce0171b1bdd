"""Request bodies, read within limits of size, of time, and of memory for all bodies together."""

import asyncio
import collections
import contextlib
import zlib
from collections.abc import AsyncIterator

from aiohttp import web

from ingest.http.deadline import DEADLINE
from shared.service.http import ProblemError

_SECONDS = 60.0  # to receive a body; 64 MiB need 9 Mbit/s
# Of each body that do not count: a small request is accepted however many large ones are received.
# The number of connections bounds them.
_FREE_BYTES = 64 * 1024
_PIECE = 256 * 1024
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})


class Bodies:
    """Reads bodies, which together take at most `budget` bytes until their requests end.

    The bodies from one address take at most `share` of them. Compressed bodies are refused unless
    `may_be_compressed`.
    """

    def __init__(
        self,
        budget: int,
        share: int | None = None,
        *,
        may_be_compressed: bool = False,
        seconds: float = _SECONDS,
    ) -> None:
        self._left = budget
        self._share = share or budget
        self._taken: collections.Counter[str | None] = collections.Counter()  # by address
        self._may_be_compressed = may_be_compressed
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def received(self, request: web.Request, limit: int) -> AsyncIterator[bytes]:
        """The whole body, at most `limit` bytes, decompressed.

        The deadline of the request starts once it is received.

        Raises ProblemError: 400 if it ended early, 408, 413, 415, 503 if the budget is exhausted.
        """
        parts: list[bytes] = []
        size = counted = 0
        request[DEADLINE].lift()
        try:
            async with self._in_time():
                async for part in self._parts(request, limit):
                    size += len(part)
                    if size > limit:  # of a body without Content-Length, or a compressed one
                        raise _too_large(limit)
                    grown = max(0, size - _FREE_BYTES) - counted
                    counted += grown
                    self._take(request.remote, grown)
                    parts.append(part)
            body = b"".join(parts)
            parts.clear()
            request[DEADLINE].start()
            yield body
        finally:
            self._give_back(request.remote, counted)

    def _take(self, address: str | None, size: int) -> None:
        self._left -= size
        self._taken[address] += size
        if self._left < 0 or self._taken[address] > self._share:
            raise ProblemError(
                503,
                "Service Unavailable",
                "too many request bodies in memory: retry in 1 s",
                {"Retry-After": "1"},
            )

    def _give_back(self, address: str | None, size: int) -> None:
        self._left += size
        self._taken[address] -= size
        if not self._taken[address]:
            del self._taken[address]

    def _parts(self, request: web.Request, limit: int) -> AsyncIterator[bytes]:
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding == "identity":
            return _raw(request)
        if self._may_be_compressed and encoding in _ENCODINGS:
            return _decompressed(request)
        raise ProblemError(
            415,
            "Unsupported Media Type",
            "the Content-Encoding is not supported here: send the body as it is",
        )

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise ProblemError(
                408, "Request Timeout", f"the body was not received within {self._seconds:g} s"
            ) from error


async def _raw(request: web.Request) -> AsyncIterator[bytes]:
    try:
        async for part in request.content.iter_any():
            yield part
    except web.RequestPayloadError as error:
        raise ProblemError(400, "Bad Request", f"the body ended early: {error}") from error


async def _decompressed(request: web.Request) -> AsyncIterator[bytes]:
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        async for part in _raw(request):
            rest = part
            while rest and not stream.eof:
                yield stream.decompress(rest, _PIECE)
                rest = stream.unconsumed_tail
        yield stream.flush()
    except zlib.error as error:
        raise ProblemError(400, "Bad Request", f"the body is not valid gzip: {error}") from error
    if not stream.eof:
        raise ProblemError(400, "Bad Request", "the compressed body ended early")


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        413, "Content Too Large", f"the body is too large: at most {limit:,} bytes are allowed"
    )
