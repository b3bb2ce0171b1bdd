"""Request bodies, read within bounds: of size, of time, and of all that are in memory at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from ingest.http.deadline import DEADLINE
from shared.service.http import ProblemError

_SECONDS = 60.0  # for a body, however slowly it comes; 64 MiB want 9 Mbit/s


class Bodies:
    """Reads bodies; together they take at most `budget` bytes, from the first one read to the end of the request."""

    def __init__(self, budget: int, seconds: float = _SECONDS) -> None:
        self._left = budget
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def received(self, request: web.Request, limit: int) -> AsyncIterator[bytes]:
        """The whole body, at most `limit` bytes. The request's deadline begins when it is there.

        Raises ProblemError: 400 for a sender who left, 408, 413, 503 if the budget is used up.
        """
        parts: list[bytes] = []
        size = 0
        request[DEADLINE].lift()
        try:
            async with self._in_time():
                async for part in _parts(request, limit):
                    size += len(part)
                    self._left -= len(part)
                    if self._left < 0:
                        raise ProblemError(503, "Service Unavailable", "too many bodies at once", {"Retry-After": "1"})
                    parts.append(part)
            body = b"".join(parts)
            parts.clear()
            request[DEADLINE].start()
            yield body
        finally:
            self._left += size

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise ProblemError(408, "Request Timeout", f"the body took more than {self._seconds:g} s") from error


async def _parts(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    size = 0
    try:
        async for part in request.content.iter_any():
            size += len(part)
            if size > limit:  # of a body that did not say how long it is, or is compressed
                raise _too_large(limit)
            yield part
    except web.RequestPayloadError as error:
        raise ProblemError(400, "Bad Request", f"the body ended early: {error}") from error


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, "Content Too Large", f"the body may have {limit:,} bytes")
