"""202 means durable, 503 means nothing half written: with a Postgres that is frozen, full or slow."""

import asyncio
import io
import urllib.parse
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from ingest.http.app import translate_errors
from ingest.http.deadline import DEADLINE, add_deadlines
from shared.service.clients import PostgresPool, postgres_pool
from shared.service.http import problem_middleware
from tests.support.ingest_server import (
    frozen,
    ingest_server,
    new_name,
    page_event,
    post_event,
    postgres_processes,
    serving,
    signed,
)
from tests.support.stage_harness import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HALF_WRITTEN = """
SELECT count(*) FROM webhook.jobs j
WHERE (SELECT count(*) FROM webhook.job_items i JOIN webhook.payloads p USING (version) WHERE i.job_id = j.job_id)
      <> j.total
"""
WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state = 'active'"
)


@pytest_asyncio.fixture(loop_scope="session")
async def pool(servers: Servers) -> AsyncIterator[PostgresPool]:
    """A pool of the server's own, full of connections, as after some traffic."""
    opened = await postgres_pool(servers.database_url, name="ingest")
    await asyncio.gather(*(opened.fetchval("SELECT pg_sleep(0.05)") for _ in range(10)))
    yield opened
    opened.terminate()


@pytest_asyncio.fixture(loop_scope="session")
async def url(pool: PostgresPool) -> AsyncIterator[str]:
    async with ingest_server(pool) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that gives up before the time limits of the connection pool (5 s and more) would
    answer it.
    """
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=4.5)
    ) as opened:
        yield opened


async def test_hundreds_of_webhooks_get_503_from_a_frozen_postgres_and_are_accepted_once_when_repeated(
    servers: Servers, url: str, session: aiohttp.ClientSession
) -> None:
    events = [page_event(new_name()) for _ in range(300)]
    assert (await post_event(session, url, page_event(new_name())))[0] == 202
    with frozen(await postgres_processes(servers.pool)):
        answers = await asyncio.gather(*(post_event(session, url, event) for event in events))
    assert {(status, retry_after) for status, _, retry_after in answers} == {(503, "5")}
    again = [await post_event(session, url, event) for event in events]
    assert {status for status, _, _ in again} == {202}
    assert len({answer["job_id"] for _, answer, _ in again}) == len(events)
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == len(events) + 1
    assert await servers.pool.fetchval(HALF_WRITTEN) == 0


@pytest.mark.parametrize("code", ["53100", "58030", "25006", "53300"])
async def test_a_postgres_that_is_full_or_takes_no_writes_is_503_and_nothing_is_half_written(
    servers: Servers, url: str, session: aiohttp.ClientSession, code: str
) -> None:
    await servers.pool.execute(
        f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}'; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON webhook.payloads EXECUTE FUNCTION refuse()"
    )
    event = page_event(new_name())
    try:
        status, _, retry_after = await post_event(session, url, event)
    finally:
        await servers.pool.execute("DROP TRIGGER refuse ON webhook.payloads")
    assert (status, retry_after) == (503, "5")
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0
    assert (await post_event(session, url, event))[0] == 202


async def test_a_sender_that_disconnects_during_the_transaction_gets_the_same_job_when_it_repeats(
    servers: Servers, url: str, session: aiohttp.ClientSession
) -> None:
    name = new_name()
    event = page_event(name)
    async with servers.pool.acquire() as other:
        blocking = other.transaction()
        await blocking.start()
        await other.execute("LOCK TABLE webhook.payloads")
        writer = await send_by_hand(url, event)
        await until_a_backend_waits(servers)
        writer.transport.abort()
        await blocking.rollback()
    await until_jobs(servers, 1)
    job_id = await servers.pool.fetchval("SELECT job_id::text FROM webhook.jobs")
    assert (await post_event(session, url, event))[1]["job_id"] == job_id
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 1
    assert await servers.pool.fetchval(HALF_WRITTEN) == 0


async def test_a_request_answered_with_503_continues_and_its_repeat_gets_the_same_job(
    servers: Servers, url: str, session: aiohttp.ClientSession
) -> None:
    event = page_event(new_name())
    async with servers.pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE webhook.payloads")
        assert (await post_event(session, url, event))[0] == 503
    await until_jobs(servers, 1)
    job_id = await servers.pool.fetchval("SELECT job_id::text FROM webhook.jobs")
    assert (await post_event(session, url, event))[1]["job_id"] == job_id


async def test_a_large_load_may_take_longer_than_the_deadline_while_postgres_answers(
    servers: Servers, pool: PostgresPool, session: aiohttp.ClientSession
) -> None:
    await servers.pool.execute(
        "CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.9); RETURN NULL; END $$; "
        "CREATE TRIGGER dawdle AFTER INSERT ON webhook.payloads FOR EACH STATEMENT EXECUTE FUNCTION dawdle()"
    )
    page = b'{"url": "https://example.com/%d", "markdown": "' + b"x" * 4_200_000 + b'"}'
    lines = b"\n".join(page.replace(b"%d", str(n).encode()) for n in range(4))
    try:
        async with ingest_server(pool, max_body_bytes=20_000_000) as url:
            headers = {
                "Authorization": f"Bearer {'t' * 32}",
                "Content-Type": "application/x-ndjson",
            }
            patient = aiohttp.ClientTimeout(total=30.0)
            async with session.post(
                f"{url}/api/index/batch", data=io.BytesIO(lines), headers=headers, timeout=patient
            ) as answer:
                assert answer.status == 202
    finally:
        await servers.pool.execute("DROP TRIGGER dawdle ON webhook.payloads")


async def test_requests_over_the_waiting_limit_are_refused_at_once_and_readers_do_not_block_writers() -> (
    None
):
    go_on, entered = asyncio.Event(), 0

    async def wait(request: web.Request) -> web.Response:
        nonlocal entered
        entered += 1
        await go_on.wait()
        return web.Response(text="done")

    app = web.Application(middlewares=[problem_middleware, translate_errors])
    add_deadlines(app, seconds=30.0, limit=3)
    app.router.add_route("*", "/api/wait", wait)
    async with serving(app) as url, aiohttp.ClientSession() as session:
        readers = [asyncio.create_task(status_of(session.get(f"{url}/api/wait"))) for _ in range(3)]
        await wait_until(lambda: entered == 3, description="three readers to wait")
        assert await status_of(session.get(f"{url}/api/wait")) == 503
        writer = asyncio.create_task(status_of(session.post(f"{url}/api/wait")))
        await wait_until(lambda: entered == 4, description="a writer to wait")
        go_on.set()
        assert await asyncio.gather(*readers, writer) == [200] * 4
        assert await status_of(session.get(f"{url}/api/wait")) == 200


async def test_started_answers_and_lifted_deadlines_outlive_the_deadline() -> None:
    passed = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await passed.wait()
        await response.write(b"news")
        return response

    async def poll(request: web.Request) -> web.Response:
        request[DEADLINE].lift()
        await passed.wait()
        return web.Response(text="ended")

    async def hang(request: web.Request) -> web.Response:
        await passed.wait()
        return web.Response()

    app = web.Application(middlewares=[problem_middleware, translate_errors])
    add_deadlines(app, seconds=0.05)
    for path, handler in (("/api/stream", stream), ("/api/poll", poll), ("/api/hang", hang)):
        app.router.add_get(path, handler)
    async with serving(app) as url, aiohttp.ClientSession() as session:
        texts = [
            asyncio.create_task(text_of(session.get(f"{url}/api/{path}")))
            for path in ("stream", "poll")
        ]
        assert await status_of(session.get(f"{url}/api/hang")) == 503
        passed.set()
        assert await asyncio.gather(*texts) == ["news", "ended"]


async def test_a_wrong_token_or_malformed_signature_is_refused_before_the_body_is_read(
    url: str,
) -> None:
    made_up = "sha256=" + "0" * 64
    for headers in (
        f"X-Firecrawl-Signature: {made_up}\r\nAuthorization: Bearer wrong",
        "X-Firecrawl-Signature: nonsense",
        "Authorization: Bearer wrong",
    ):
        assert await status_without_body(url, headers) == 401
    signature = f"X-Firecrawl-Signature: {made_up}"
    assert await status_without_body(url, signature, length=2_000_000) == 413


async def test_bodies_with_forged_signatures_have_their_own_memory_budget(
    url: str, session: aiohttp.ClientSession
) -> None:
    headers = f"X-Firecrawl-Signature: sha256={'0' * 64}\r\nContent-Length: 1000000"
    writers = []
    for _ in range(3):  # two of the largest size have room
        writer = await send_head(url, headers)
        writer.write(b"x" * 900_000)
        await writer.drain()
        writers.append(writer)
    body = page_event(new_name(), markdown="x" * 300_000)

    await until_answered(session, url, body, 503)
    bearer = {"Authorization": f"Bearer {'t' * 32}"}
    async with session.post(f"{url}/api/webhook/firecrawl", data=body, headers=bearer) as response:
        assert response.status == 202
    for writer in writers:
        writer.transport.abort()
    await until_answered(session, url, body, 202)


async def status_of(request: "aiohttp.client._RequestContextManager") -> int:
    async with request as response:
        return response.status


async def text_of(request: "aiohttp.client._RequestContextManager") -> str:
    async with request as response:
        return await response.text()


async def until_jobs(servers: Servers, count: int) -> None:
    async def are_there() -> bool:
        return bool(await servers.pool.fetchval("SELECT count(*) = $1 FROM webhook.jobs", count))

    await wait_until(are_there, description=f"{count} jobs")


async def until_a_backend_waits(servers: Servers) -> None:
    await wait_until(
        lambda: servers.pool.fetchval(WAITING_FOR_A_LOCK),
        description="a backend that waits for a lock",
    )


async def until_answered(
    session: aiohttp.ClientSession, url: str, body: bytes, status: int
) -> None:
    async def is_answered() -> bool:
        return (await post_event(session, url, body))[0] == status

    await wait_until(is_answered, description=f"an answer with status {status}")


async def send_head(url: str, headers: str) -> asyncio.StreamWriter:
    return (await connect(url, headers))[1]


async def connect(url: str, headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send the head of a webhook."""
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"POST /api/webhook/firecrawl HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def status_without_body(url: str, headers: str, length: int = 1000) -> int:
    """The answer to a head alone."""
    reader, writer = await connect(url, f"{headers}\r\nContent-Length: {length}")
    async with asyncio.timeout(3):
        line = await reader.readline()
    writer.transport.abort()
    return int(line.split()[1])


async def send_by_hand(url: str, body: bytes) -> asyncio.StreamWriter:
    headers = "\r\n".join(f"{name}: {value}" for name, value in signed(body).items())
    writer = await send_head(url, f"{headers}\r\nContent-Length: {len(body)}")
    writer.write(body)
    await writer.drain()
    return writer
