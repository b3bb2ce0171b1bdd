"""Connections that send nothing, or too many of them: what the listening socket does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from shared.service.connections import ConnectionLimits, Listener
from shared.service.metrics import Metrics
from tests.support.waiting import wait_until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server whose one route waits for `go_on`, if told to."""

    def __init__(self, port: int, metrics: Metrics) -> None:
        self.port = port
        self.metrics = metrics
        self.entered = 0
        self.go_on = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(sent)
        await writer.drain()
        return reader, writer

    async def disconnect(self) -> None:
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def closed(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "millstream_closed_connections_total", {"reason": reason}
        )
        return value or 0.0


@contextlib.asynccontextmanager
async def served(limits: ConnectionLimits, *, waits: bool = False) -> AsyncIterator[Served]:
    async def get(_request: web.Request) -> web.Response:
        server.entered += 1
        if waits:
            await server.go_on.wait()
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", get)
    metrics = Metrics()
    listener = Listener(app, metrics, limits, shutdown_timeout=1.0)
    server = Served(await listener.start("127.0.0.1", 0), metrics)
    try:
        yield server
    finally:
        server.go_on.set()
        await server.disconnect()
        await listener.close()


async def answer(connection: Connection) -> bytes:
    """The status line; empty if the server closed the connection."""
    async with asyncio.timeout(30):
        try:
            return await connection[0].readline()
        except ConnectionResetError:
            return b""


async def test_a_connection_without_a_complete_head_is_closed() -> None:
    async with served(ConnectionLimits(first_request_s=0.2)) as server:
        silent = await server.connect()
        slow = await server.connect(GET[:20])
        assert await answer(silent) == b""
        assert await answer(slow) == b""
        assert server.closed("no_request") == 2
        prompt = await server.connect(GET)
        assert b"200" in await answer(prompt)


async def test_hundreds_of_half_open_connections_keep_no_request_out() -> None:
    async with served(ConnectionLimits(connections=20)) as server:
        silent = [await server.connect() for _ in range(300)]
        assert b"200" in await answer(await server.connect(GET))
        assert await answer(silent[0]) == b""  # the oldest made room
        assert server.closed("limit") == 281


async def test_a_request_in_progress_is_never_closed_for_a_new_connection() -> None:
    async with served(ConnectionLimits(connections=2), waits=True) as server:
        busy = [await server.connect(GET) for _ in range(2)]
        await wait_until(lambda: server.entered == 2, description="two requests in progress")
        assert await answer(await server.connect(GET)) == b""
        server.go_on.set()
        assert all([b"200" in await answer(each) for each in busy])
        assert b"200" in await answer(await server.connect(GET))


async def test_a_connection_that_had_a_request_is_kept_between_requests() -> None:
    async with served(ConnectionLimits(first_request_s=0.2)) as server:
        kept = await server.connect(GET)
        assert b"200" in await answer(kept)
        assert await answer(await server.connect()) == b""  # the time for a first request is over
        kept[1].write(GET)
        await wait_until(lambda: server.entered == 2, description="the second request")
