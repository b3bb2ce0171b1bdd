"""A proxy before a Qdrant server that records each request, and may hold some of them back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.service.settings import QdrantSettings

_MAX_BODY_BYTES = 64 * 1024 * 1024


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One request and the head of its answer."""

    method: str
    path: str
    accept_encoding: str | None  # of the request
    content_encoding: str | None  # of the answer
    is_chunked: bool


class QdrantRecorder:
    """Forwards to the server at `url`; `requests` is what was answered, in order.

    `delays` has the seconds that a request is held back before it is forwarded, by the last part of its path.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.requests: list[Recorded] = []
        self.delays: dict[str, float] = {}

    async def forward(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delays.get(request.path.rpartition("/")[2], 0.0))
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with self._session.request(
            request.method, self._url + request.raw_path, data=await request.read(), headers=headers,
            skip_auto_headers=("Accept-Encoding",),
        ) as answer:  # fmt: skip
            body = await answer.read()
            self.requests.append(
                Recorded(
                    method=request.method,
                    path=request.path,
                    accept_encoding=request.headers.get("Accept-Encoding"),
                    content_encoding=answer.headers.get("Content-Encoding"),
                    is_chunked="Transfer-Encoding" in answer.headers,
                )
            )
            return web.Response(status=answer.status, body=body, content_type="application/json")


_PASSED_ON = ("Accept-Encoding", "api-key", "Content-Type")


@contextlib.asynccontextmanager
async def recording(settings: QdrantSettings) -> AsyncIterator[tuple[QdrantRecorder, QdrantSettings]]:
    """A recorder before a server, and the settings that lead through it."""
    async with aiohttp.ClientSession() as session:
        recorder = QdrantRecorder(settings.qdrant_url, session)
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", recorder.forward)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            yield recorder, msgspec.structs.replace(settings, qdrant_url=url)
