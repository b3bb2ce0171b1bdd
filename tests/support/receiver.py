"""A receiver of callbacks about finished jobs: an HTTP server that keeps each POST."""

import base64
import contextlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from tests.support.ingest_server import serving


class Told(msgspec.Struct, frozen=True):
    """One POST."""

    headers: dict[str, str]
    body: bytes

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = msgspec.json.decode(self.body)["job"]
        return job

    @property
    def delivery_id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed(self, secret: str) -> bool:
        """As docs/api.md tells receivers to check."""
        signed = f"{self.delivery_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.digest(secret.encode(), signed, "sha256")
        expected = f"v1,{base64.b64encode(digest).decode()}"
        return hmac.compare_digest(expected, self.headers["webhook-signature"])


class Receiver:
    """Answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.told: list[Told] = []
        self.visits: list[str] = []  # of any path
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.visits.append(request.path)
        self.told.append(Told(dict(request.headers), await request.read()))
        return web.Response(
            status=self.status, headers={"Location": "/elsewhere"} if self.status == 302 else {}
        )


@contextlib.asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """Serve until the block ends; its `url` is to be called."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    async with serving(app) as base:
        receiver.url = f"{base}/done"
        yield receiver
