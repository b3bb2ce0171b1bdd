"""The listening socket of a service, and limits on connections that send no request.

aiohttp closes idle connections, but has no limit on their number, and only one time for those that
are kept between requests and those that never sent one.
"""

import asyncio
import resource
from typing import Any

import msgspec
import structlog
from aiohttp import web

from shared.service.metrics import Metrics

log = structlog.get_logger()

_KEPT_S = 75.0  # between two requests; longer than load balancers keep a connection (60 s)
_LOG_EVERY_S = 10.0
_MOST_CONNECTIONS = 1000


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one listening socket."""

    connections: int = _MOST_CONNECTIONS
    first_request_s: float = 10.0  # from the connection to the end of its first head


class Listener:
    """Serves an application on one socket.

    At the limit the connection without a request that is open longest is closed for the new one;
    if there is none, the new one is.
    """

    def __init__(
        self,
        app: web.Application,
        metrics: Metrics,
        limits: ConnectionLimits,
        *,
        shutdown_timeout: float = 5.0,
    ) -> None:
        self._limits = limits
        self._closed = metrics.closed_connections
        # Encoded bodies are decoded only where one is expected: see ingest/http/bodies.py.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=shutdown_timeout,
            keepalive_timeout=_KEPT_S,
            auto_decompress=False,
        )
        self._server: asyncio.Server | None = None
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}  # for a first request
        self._busy: set[web.RequestHandler] = set()
        self._last_log = float("-inf")
        app.middlewares.insert(0, self._middleware())

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, for 0 a free one. Raises OSError; then it can be repeated."""
        if self._runner.server is None:
            await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=128)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Accept no more connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
        for timer in self._waiting.values():
            timer.cancel()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._limits.connections:
            idle = next((each for each in server.connections if each not in self._busy), None)
            self._note_limit()
            if idle is None:
                return _Refused()
            idle.force_close()
        handler: web.RequestHandler = server()
        loop = asyncio.get_running_loop()
        self._waiting[handler] = loop.call_later(
            self._limits.first_request_s, self._close_silent, handler
        )
        return handler

    def _close_silent(self, handler: web.RequestHandler) -> None:
        del self._waiting[handler]
        if handler.transport is not None:
            self._closed.labels("no_request").inc()
            handler.force_close()

    def _note_limit(self) -> None:
        self._closed.labels("limit").inc()
        now = asyncio.get_running_loop().time()
        if now - self._last_log >= _LOG_EVERY_S:
            self._last_log = now
            log.warning("Too many connections", limit=self._limits.connections)

    def _middleware(self) -> Any:
        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            connection = request.protocol
            if timer := self._waiting.pop(connection, None):
                timer.cancel()
            self._busy.add(connection)
            try:
                response: web.StreamResponse = await handler(request)
                return response
            finally:
                self._busy.discard(connection)

        return count


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def limits_of_this_process() -> ConnectionLimits:
    """Raise the limit on file descriptors as far as allowed; half of them are for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    available = _MOST_CONNECTIONS * 2 if hard == resource.RLIM_INFINITY else hard
    return ConnectionLimits(connections=min(_MOST_CONNECTIONS, available // 2))
