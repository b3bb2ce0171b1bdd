"""Bodies of senders without credentials: they do not keep signed webhooks out."""

import asyncio
import contextlib
import gzip
import json
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.support.ingest_server import (
    TOKEN,
    ingest_server,
    new_name,
    page_event,
    post_event,
    signed,
)
from tests.support.stage_harness import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_BODY = 1024 * 1024
FORGED = "X-Firecrawl-Signature: sha256=" + "0" * 64
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest_asyncio.fixture(loop_scope="session")
async def url(servers: Servers) -> AsyncIterator[str]:
    async with ingest_server(servers.pool, max_body_bytes=MAX_BODY) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@contextlib.asynccontextmanager
async def unfinished(
    url: str, body: bytes, *headers: str, address: str = "127.0.0.1"
) -> AsyncIterator[asyncio.StreamReader]:
    """A webhook with a forged signature whose body never ends."""
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, local_addr=(address, 0)
    )
    head = "\r\n".join(
        ("POST /api/webhook/firecrawl HTTP/1.1", "Host: x", FORGED, *headers, "", "")
    )
    writer.write(head.encode() + body)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_compressed_bodies_with_a_forged_signature_are_refused_by_their_head(
    url: str, session: aiohttp.ClientSession
) -> None:
    bomb = gzip.compress(bytes(900_000))[:-8]
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(bomb) + 8}")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            reader = await stack.enter_async_context(unfinished(url, bomb, *headers))
            async with asyncio.timeout(30):
                assert b"415" in await reader.readline()
        body = page_event(new_name(), markdown="x" * 600_000)
        assert (await post_event(session, url, body))[0] == 202


async def test_a_signature_over_a_compressed_body_is_415(
    url: str, session: aiohttp.ClientSession
) -> None:
    body = gzip.compress(page_event(new_name()))
    headers = {**signed(body), "Content-Encoding": "gzip"}
    async with session.post(f"{url}/api/webhook/firecrawl", data=body, headers=headers) as answer:
        assert answer.status == 415


async def test_one_address_takes_at_most_half_of_the_memory_and_small_webhooks_always_pass(
    url: str, session: aiohttp.ClientSession
) -> None:
    body = bytes(900_000)
    async with contextlib.AsyncExitStack() as stack:
        for address in ("127.0.0.2", "127.0.0.2", "127.0.0.2"):
            await stack.enter_async_context(
                unfinished(url, body, f"Content-Length: {MAX_BODY}", address=address)
            )
        large = page_event(new_name(), markdown="x" * 600_000)
        assert (await post_event(session, url, large))[0] == 202
        for address in ("127.0.0.3", "127.0.0.4"):
            await stack.enter_async_context(
                unfinished(url, body, f"Content-Length: {MAX_BODY}", address=address)
            )

        async def is_refused() -> bool:
            event = page_event(new_name(), markdown="x" * 900_000)
            return (await post_event(session, url, event))[0] == 503

        await wait_until(is_refused, description="the memory for large webhooks to be taken")
        for _ in range(20):
            small = page_event(new_name(), markdown="x" * 60_000)
            assert (await post_event(session, url, small))[0] == 202


def lines(count: int, size: int) -> bytes:
    page = {"markdown": "x" * size}
    return b"\n".join(
        json.dumps({"url": f"https://example.com/{new_name()}", **page}).encode()
        for _ in range(count)
    )


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_with_the_token_a_body_may_be_compressed(
    url: str, session: aiohttp.ClientSession, compress: Callable[[bytes], bytes]
) -> None:
    encoding = "gzip" if compress is gzip.compress else "deflate"
    headers = {
        **BEARER,
        "Content-Encoding": encoding,
        "Content-Type": "application/x-ndjson",
    }
    whole = compress(lines(20, 40_000))
    for body, status in (
        (whole, 202),
        (compress(lines(30, 40_000)), 413),
        (whole[:-20], 400),
        (b"no gzip", 400),
    ):
        async with session.post(f"{url}/api/index/batch", data=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()


async def test_an_unknown_encoding_is_415(url: str, session: aiohttp.ClientSession) -> None:
    headers = {**BEARER, "Content-Encoding": "zstd"}
    async with session.post(f"{url}/api/index/batch", data=b"x", headers=headers) as answer:
        assert answer.status == 415


async def test_a_request_of_only_invalid_documents_logs_a_few_of_them(
    url: str, session: aiohttp.ClientSession
) -> None:
    body = json.dumps({"documents": [{}] * 5000}).encode()
    with capture_logs() as logged:
        async with session.post(f"{url}/api/index/batch", data=body, headers=BEARER) as answer:
            assert answer.status == 202
            assert len((await answer.json())["rejected"]) == 5000
    events = [line["event"] for line in logged]
    assert events.count("Failed to parse document payload") == 20
    assert events.count("Job accepted") == 1
