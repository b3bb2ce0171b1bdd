"""Request bodies, read within limits of size, of time, and of memory for all bodies together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from ingest.http.deadline import DEADLINE
from shared.service.http import ProblemError

_SECONDS = 60.0  # to receive a body; 64 MiB need 9 Mbit/s


class Bodies:
    """Reads bodies, which together take at most `budget` bytes until their requests end."""

    def __init__(self, budget: int, seconds: float = _SECONDS) -> None:
        self._left = budget
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def received(self, request: web.Request, limit: int) -> AsyncIterator[bytes]:
        """The whole body, at most `limit` bytes.

        The deadline of the request starts once it is received.

        Raises ProblemError: 400 if the sender disconnected, 408, 413, 503 if the budget is
        exhausted.
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
                        raise ProblemError(
                            503,
                            "Service Unavailable",
                            "too many request bodies in memory: retry in 1 s",
                            {"Retry-After": "1"},
                        )
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
            raise ProblemError(
                408, "Request Timeout", f"the body was not received within {self._seconds:g} s"
            ) from error


async def _parts(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    size = 0
    try:
        async for part in request.content.iter_any():
            size += len(part)
            if size > limit:  # of a body without Content-Length, or a compressed one
                raise _too_large(limit)
            yield part
    except web.RequestPayloadError as error:
        raise ProblemError(400, "Bad Request", f"the body ended early: {error}") from error


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        413, "Content Too Large", f"the body is too large: at most {limit:,} bytes are allowed"
    )
