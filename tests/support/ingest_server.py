"""The accepting routes of ingest on real Postgres, and the means to freeze that Postgres."""

import contextlib
import hmac
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ingest.documents.acceptance import Acceptance
from ingest.documents.document import Limits
from ingest.http.app import make_app
from ingest.http.routes.accept import AcceptApi, Rules
from ingest.http.sessions import Sessions
from shared.service.auth import Authenticator
from shared.service.clients import PostgresPool
from shared.service.connections import ConnectionLimits, Listener
from shared.service.http import problem_middleware
from shared.service.metrics import Metrics
from shared.service.routes import add_routes
from shared.service.settings import Secret
from tests.support.local_stack import children

TOKEN = "t" * 32
KEY = "k" * 32
COLLECTION = "docs"


@contextlib.asynccontextmanager
async def ingest_server(
    pool: PostgresPool, *, max_body_bytes: int = 1024 * 1024, may_call_private: bool = False
) -> AsyncIterator[str]:
    """Serve the routes that take documents in; the URL."""
    authenticator = Authenticator(Secret(TOKEN), Secret(KEY))
    app = make_app(authenticator, Sessions(Secret(TOKEN)), max_body_bytes)
    app.middlewares.insert(0, problem_middleware)
    acceptance = Acceptance(pool, Metrics(), collection=COLLECTION, timeout=600)
    rules = Rules(
        limits=Limits(),
        max_body_bytes=max_body_bytes,
        deduplication_window=3600,
        may_call_private=may_call_private,
    )
    add_routes(app, AcceptApi(acceptance, authenticator, rules))
    async with serving(app) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    listener = Listener(app, Metrics(), ConnectionLimits(), shutdown_timeout=1.0)
    try:
        yield f"http://127.0.0.1:{await listener.start('127.0.0.1', 0)}"
    finally:
        await listener.close()


def page_event(
    name: str, markdown: str = "Text.", metadata: Mapping[str, str] | None = None
) -> bytes:
    """A webhook with one page; the same name is the same delivery."""
    of_name = {"url": f"https://example.com/{name}", "scrapeId": name}
    page = {"markdown": markdown, "metadata": {**of_name, **(metadata or {})}}
    return json.dumps(
        {"success": True, "type": "crawl.page", "id": "c", "webhookId": name, "data": [page]}
    ).encode()


def signed(body: bytes) -> dict[str, str]:
    """The headers of a signed webhook."""
    return {"X-Firecrawl-Signature": "sha256=" + hmac.digest(KEY.encode(), body, "sha256").hex()}


async def post_event(
    session: aiohttp.ClientSession, url: str, body: bytes
) -> tuple[int, Any, str | None]:
    """Post a signed webhook: status, answer, Retry-After."""
    async with session.post(
        f"{url}/api/webhook/firecrawl", data=body, headers=signed(body)
    ) as response:
        return (
            response.status,
            await response.json(content_type=None),
            response.headers.get("Retry-After"),
        )


async def postgres_processes(pool: PostgresPool) -> list[int]:
    """The postmaster and its children: freezing the postmaster alone freezes nothing (Linux)."""
    backend = await pool.fetchval("SELECT pg_backend_pid()")
    postmaster = _parent(backend)
    return [postmaster, *children(postmaster)]


@contextlib.contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Stop the processes until the block ends."""
    stopped = []
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def new_name() -> str:
    return uuid.uuid4().hex


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
