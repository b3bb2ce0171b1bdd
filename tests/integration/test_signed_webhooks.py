"""A captured webhook: what a sender can do with a signature of someone else, and cannot."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ingest.jobs.retention import Retention
from tests.support.ingest_server import (
    COLLECTION,
    TOKEN,
    ingest_server,
    new_name,
    page_event,
    signed,
)
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ELSEWHERE = "?collection=elsewhere&lane=high"
DAY = 86400.0


@pytest_asyncio.fixture(loop_scope="session")
async def client(servers: Servers) -> AsyncIterator[aiohttp.ClientSession]:
    async with ingest_server(servers.pool) as url, aiohttp.ClientSession(url) as session:
        yield session


async def send(
    client: aiohttp.ClientSession, body: bytes, query: str = "", headers: Mapping[str, str] = {}
) -> str:
    """Post a signed webhook with documents; its job id."""
    path = f"/api/webhook/firecrawl{query}"
    async with client.post(path, data=body, headers={**signed(body), **headers}) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["job_id"])


async def placement(servers: Servers, job_id: str) -> tuple[str, str]:
    row = await servers.pool.fetchrow(
        "SELECT collection, lane FROM webhook.job_items WHERE job_id = $1", job_id
    )
    assert row is not None
    return row["collection"], row["lane"]


async def age(servers: Servers, days: int) -> None:
    """Let the deliveries be older, and delete what has passed its retention of a day."""
    for table, column in (("idempotency_keys", "expires_at"), ("jobs", "finished_at")):
        await servers.pool.execute(
            f"UPDATE webhook.{table} SET {column} = {column} - make_interval(days => $1)", days
        )
    retention = Retention(servers.pool, retention=DAY, cache_retention=90 * DAY)
    for part in ("jobs", "keys"):
        await retention.parts[part]()


async def test_the_query_of_a_signed_webhook_does_not_move_its_documents(
    servers: Servers, client: aiohttp.ClientSession
) -> None:
    job_id = await send(client, page_event(new_name()), ELSEWHERE)
    assert await placement(servers, job_id) == (COLLECTION, "normal")


async def test_an_idempotency_key_does_not_give_a_signed_webhook_another_identity(
    servers: Servers, client: aiohttp.ClientSession
) -> None:
    body = page_event(new_name())
    first = await send(client, body)
    assert await send(client, body, headers={"Idempotency-Key": new_name()}) == first
    # Nor does a key of another request replace that identity.
    key = {"Idempotency-Key": new_name()}
    assert await send(client, body, headers={**BEARER, **key}) != first
    other = await send(client, page_event(new_name()), headers=key)
    assert other != first
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 3


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer"])
async def test_credentials_that_are_no_token_leave_the_query_unsigned(
    servers: Servers, client: aiohttp.ClientSession, authorization: str
) -> None:
    headers = {"Authorization": authorization}
    job_id = await send(client, page_event(new_name()), ELSEWHERE, headers)
    assert await placement(servers, job_id) == (COLLECTION, "normal")


async def test_with_the_token_beside_the_signature_query_and_key_count(
    servers: Servers, client: aiohttp.ClientSession
) -> None:
    headers = {**BEARER, "Idempotency-Key": new_name()}
    body = page_event(new_name())
    job_id = await send(client, body, ELSEWHERE, headers)
    assert await placement(servers, job_id) == ("elsewhere", "high")
    assert await send(client, body, ELSEWHERE, headers) == job_id


def without(body: bytes, *names: str) -> bytes:
    """The event as an older server sends it."""
    event: dict[str, Any] = json.loads(body)
    page = event["data"][0]
    page["metadata"] = {k: v for k, v in page["metadata"].items() if k not in names}
    return json.dumps({k: v for k, v in event.items() if k not in names}).encode()


@pytest.mark.parametrize("missing", [(), ("webhookId",), ("webhookId", "scrapeId")])
async def test_a_replay_after_years_is_a_repeat_and_does_not_replace_newer_text(
    servers: Servers, client: aiohttp.ClientSession, missing: tuple[str, ...]
) -> None:
    page = {"url": f"https://example.com/{new_name()}"}
    old = without(page_event("first", "Old text.", page), *missing)
    new = without(page_event("second", "New text.", page), *missing)
    jobs = [await send(client, old), await send(client, new)]
    await age(servers, 3000)
    assert await send(client, old) == jobs[0]
    await servers.pool.execute("UPDATE webhook.jobs SET finished_at = now()")
    await age(servers, 2)  # the jobs are deleted, the deliveries are not forgotten
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0
    assert await send(client, old) == jobs[0]
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0


async def test_a_body_without_any_id_is_new_again_after_half_an_hour(
    servers: Servers, client: aiohttp.ClientSession
) -> None:
    body = without(page_event(new_name()), "webhookId", "scrapeId", "id")
    first = await send(client, body)
    assert await send(client, body) == first
    await age(servers, 1)
    assert await send(client, body) != first
