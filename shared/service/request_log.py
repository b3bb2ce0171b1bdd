"""What is recorded of every request: a count, and a line for those that are refused."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from shared.service.http import PROBLEM
from shared.service.metrics import Metrics

log = structlog.get_logger()

# The sender's credentials, size or pace. Other errors are told by the response, or have a line.
_REFUSALS = frozenset({401, 403, 408, 413, 415, 429})
_LINES = 10  # in one window: refused requests must not fill the disk
_WINDOW_S = 10.0
_UNKNOWN = "unknown"  # paths that no route has are not bounded


class RequestLog:
    """Counts the requests of one socket, and logs refused ones at a limited rate."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests = metrics.http_requests
        self._clock = clock
        self._window_ends = float("-inf")
        self._lines = self._unlogged = 0

    def middleware(self) -> Any:
        """The outermost middleware of an application."""

        @web.middleware
        async def record(request: web.Request, handler: Any) -> web.StreamResponse:
            status = 500  # of a request that was interrupted
            try:
                response: web.StreamResponse = await handler(request)
                status = response.status
            except web.HTTPException as error:
                status = error.status
                raise
            else:
                return response
            finally:
                route = _route(request)
                self._requests.labels(route, str(status)).inc()
                if status in _REFUSALS:
                    self._note(request, route, status)

        return record

    def _note(self, request: web.Request, route: str, status: int) -> None:
        now = self._clock()
        if now >= self._window_ends:
            self._window_ends, self._lines = now + _WINDOW_S, 0
        if self._lines == _LINES:
            self._unlogged += 1
            return
        self._lines += 1
        log.warning(
            "Request refused", status=status, route=route, address=request.remote,
            reason=request.get(PROBLEM), unlogged=self._unlogged,
        )  # fmt: skip
        self._unlogged = 0


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return _UNKNOWN if resource is None else resource.canonical
