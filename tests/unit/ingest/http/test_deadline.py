"""Requests that fail leave nothing behind: their bodies are freed at once, not by the cycle
collector.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ingest.http.app import translate_errors
from ingest.http.deadline import add_deadlines
from shared.service.errors import DependencyError
from shared.service.http import ProblemError, problem_middleware


class Body(bytearray):
    """A body that can be watched."""


def malformed() -> None:
    raise ProblemError(400, "Bad Request", "not JSON")


def unexpected() -> None:
    raise ValueError


def unavailable() -> None:
    raise DependencyError("postgres", "no answer")


def unauthorized() -> None:
    raise web.HTTPUnauthorized


@pytest.mark.parametrize("fail", [malformed, unexpected, unavailable, unauthorized])
async def test_the_body_of_a_failed_request_is_freed_at_once(fail: Callable[[], None]) -> None:
    bodies: list[weakref.ref[Any]] = []

    async def post(request: web.Request) -> web.Response:
        body = Body(await request.read())
        bodies.append(weakref.ref(body))
        fail()
        return web.Response()

    app = web.Application(middlewares=[problem_middleware, translate_errors])
    add_deadlines(app)
    app.router.add_post("/api/index", post)
    async with TestClient(TestServer(app)) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                async with client.post("/api/index", data=b"x" * 1000) as answer:
                    assert answer.status >= 400
            alive = sum(body() is not None for body in bodies)
        finally:
            gc.enable()
    assert alive == 0
