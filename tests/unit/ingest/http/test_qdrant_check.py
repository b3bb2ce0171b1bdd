import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingest.http.qdrant_check import check_qdrant
from shared.service.errors import DependencyError
from shared.service.settings import QdrantSettings


async def check(status: int, *, is_up: bool = True) -> None:
    async def root(_: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/", root)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("/"))
        if not is_up:
            await server.close()
        await check_qdrant(session, QdrantSettings(qdrant_url=url))()


async def test_a_qdrant_that_answers_is_healthy() -> None:
    await check(200)


@pytest.mark.parametrize(("status", "is_up"), [(503, True), (200, False)])
async def test_a_qdrant_that_refuses_or_is_down_is_not(status: int, is_up: bool) -> None:
    with pytest.raises(DependencyError, match="qdrant"):
        await check(status, is_up=is_up)
