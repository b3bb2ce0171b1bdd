"""Refused requests leave a line and a count, and cannot fill the log."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from shared.service.http import ProblemError, problem_middleware
from shared.service.metrics import Metrics
from shared.service.request_log import RequestLog

Client = TestClient[web.Request, web.Application]


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """An application whose route answers with the status in its path."""

    def __init__(self) -> None:
        self.metrics, self.clock = Metrics(), Clock()
        self.app = web.Application(
            middlewares=[RequestLog(self.metrics, self.clock).middleware(), problem_middleware]
        )
        self.app.router.add_get("/answer/{status}", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        if status >= 400:
            raise ProblemError(status, "Refused", "wrong token")
        return web.Response(status=status)

    def count(self, route: str, status: str) -> float | None:
        labels = {"route": route, "status": status}
        return self.metrics.registry.get_sample_value("millstream_http_requests_total", labels)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    yield World()


async def refused(world: World, *paths: str) -> list[Mapping[str, Any]]:
    with capture_logs() as lines:
        async with TestClient(TestServer(world.app)) as client:
            for path in paths:
                await client.get(path)
    return [line for line in lines if line["event"] == "Request refused"]


async def test_a_refused_request_is_one_line_with_reason_route_and_address(world: World) -> None:
    [line] = await refused(world, "/answer/401", "/answer/200", "/answer/422")
    assert (line["status"], line["reason"]) == (401, "wrong token")
    assert (line["route"], line["address"]) == ("/answer/{status}", "127.0.0.1")


async def test_requests_are_counted_by_route_and_status_and_unknown_paths_together(
    world: World,
) -> None:
    await refused(world, "/answer/401", "/answer/200", "/answer/200", "/a", "/b")
    assert world.count("/answer/{status}", "200") == 2
    assert world.count("/answer/{status}", "401") == 1
    assert world.count("unknown", "404") == 2


async def test_refusals_are_logged_at_a_limited_rate_and_the_others_are_counted(
    world: World,
) -> None:
    async with TestClient(TestServer(world.app)) as client:
        with capture_logs() as lines:
            for _ in range(25):
                await client.get("/answer/401")
            assert len(lines) == 10
            world.clock.now += 10
            await client.get("/answer/401")
    assert lines[-1]["unlogged"] == 15
    assert world.count("/answer/{status}", "401") == 26
