"""A proxy before a Qdrant server: records requests, delays them, plays an older release."""

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

    `delays` has the seconds that a request is held back before it is forwarded, by the last part
    of its path. With `release`, a version before 1.19, the server answers as that release does
    (seen on 1.16.3). With `refuses_scans` it also refuses filters on a field without a fitting
    index, as a server in strict mode does. With `refuses` it refuses every request whose path or
    body has this text.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.requests: list[Recorded] = []
        self.delays: dict[str, float] = {}
        self.release: str | None = None
        self.refuses_scans = False
        self.refuses: str | None = None

    async def forward(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delays.get(request.path.rpartition("/")[2], 0.0))
        body = await request.read()
        if self.refuses and self.refuses in request.path + body.decode():
            return _refused("Format error in JSON body: data did not match any variant")
        if self.release:
            if request.path == "/":
                return web.json_response({"title": "qdrant", "version": self.release, "commit": ""})
            if b'"match":{"prefix"' in body:
                return _refused("Format error in JSON body: Expected some form of condition")
            if self.refuses_scans and b'"match":{"text"' in body:
                return _refused(
                    'Bad request: Index required but not found for "url" '
                    "of one of the following types"
                )
            # On a field without a full-text index, `text` finds substrings before 1.19.1. Payload
            # indexes of keywords
            # ignore the option `prefix`.
            body = body.replace(b'"match":{"text"', b'"match":{"substring"').replace(
                b',"prefix":true}', b"}"
            )
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with self._session.request(
            request.method, self._url + request.raw_path, data=body, headers=headers,
            skip_auto_headers=("Accept-Encoding",),
        ) as answer:  # fmt: skip
            content = await answer.read()
            self.requests.append(
                Recorded(
                    method=request.method,
                    path=request.path,
                    accept_encoding=request.headers.get("Accept-Encoding"),
                    content_encoding=answer.headers.get("Content-Encoding"),
                    is_chunked="Transfer-Encoding" in answer.headers,
                )
            )
            return web.Response(status=answer.status, body=content, content_type="application/json")


def _refused(reason: str) -> web.Response:
    return web.json_response({"status": {"error": reason}, "time": 0}, status=400)


_PASSED_ON = ("Accept-Encoding", "api-key", "Content-Type")


@contextlib.asynccontextmanager
async def recording(
    settings: QdrantSettings,
) -> AsyncIterator[tuple[QdrantRecorder, QdrantSettings]]:
    """A recorder before a server, and the settings that lead through it."""
    async with aiohttp.ClientSession() as session:
        recorder = QdrantRecorder(settings.qdrant_url, session)
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", recorder.forward)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            yield recorder, msgspec.structs.replace(settings, qdrant_url=url)
