"""Repeated requests, unreadable requests and unreadable entries."""

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import msgspec
from redis.asyncio import Redis

from cli.sample.webhooks import Event, events
from shared.pipeline.messages import SCHEMA_VERSION
from shared.pipeline.stages import StageName
from shared.service.clients import redis_command
from tests.torture.checker import Point
from tests.torture.driver import Run, Scenario, Size
from tests.torture.traffic import Page, Request, page

_AT_ONCE = 5
_HUGE = 8 * 1024 * 1024  # bytes
_ROUTES = ("/api/index", "/api/index/batch", "/api/webhook/firecrawl", "/api/search")
_SEEN_BY = 60.0  # seconds until the stages must have seen all entries

_Send = Callable[[], Awaitable[str]]


async def repeat_requests(run: Run) -> None:
    """Send requests and webhooks five times at once, and again later: always the same job."""
    async with run.client() as client:
        for number in range(run.size.faults):
            request = Request(
                key=f"{run.site}-same-{number}", pages=(page(run.site, 10**6 + number, 0),)
            )
            webhook = page(run.site, 2 * 10**6 + number, 0)
            event = _crawl_page(run, webhook)
            await _repeat(run, client, request, functools.partial(run.post, client, request))
            sent = Request(key=f"{run.site}-webhook-{number}", pages=(webhook,))
            await _repeat(run, client, sent, functools.partial(_post_webhook, client, event))


async def _repeat(run: Run, client: httpx.AsyncClient, request: Request, send: _Send) -> None:
    jobs = set(await asyncio.gather(*(send() for _ in range(_AT_ONCE))))
    job_id = next(iter(jobs))
    run.ledger.accept(request, job_id)
    await client.get(f"/api/jobs/{job_id}", params={"wait": "15"})
    before = await _points(run, request)
    jobs.add(await send())
    await client.get(f"/api/jobs/{job_id}", params={"wait": "15"})
    if len(jobs) != 1:
        run.problems.append(f"one request became {len(jobs)} jobs")
    if not before or await _points(run, request) != before:
        run.problems.append(f"a repeat changed the points of {request.urls}")
    run.faults += 1


async def _points(run: Run, request: Request) -> list[Point]:
    observed = await run.observer.observe(run.site)
    return sorted(
        (p for p in observed.points if p.url in request.urls),
        key=lambda p: (p.version, p.chunk_index),
    )


def _crawl_page(run: Run, sent: Page) -> Event:
    metadata = {"sourceURL": sent.url, "statusCode": 200}
    crawl = events([{"markdown": sent.markdown, "metadata": metadata}], lambda: str(uuid.uuid4()))
    return next(event for event in crawl if event["data"])


async def _post_webhook(client: httpx.AsyncClient, event: Event) -> str:
    answer = await client.post("/api/webhook/firecrawl", json=event)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


async def send_nonsense(run: Run) -> None:
    """Add unreadable entries and send unreadable bodies: no process ends, each is answered."""
    processes = set(run.rig.stage_urls)
    async with (
        run.client() as client,
        redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis,
    ):
        newer = [await _add_newer(redis, stage) for stage in StageName]
        for number in range(run.size.faults):
            await asyncio.sleep(run.size.seconds / run.size.faults / 2)
            stream = run.random.choice([stream for stage in StageName for stream in stage.streams])
            await redis.xadd(stream, _unreadable(run, number))
            await _post_nonsense(run, client)
            run.faults += 1
        await _drop_dead_letters(run, client)
        for stage, stream, entry_id in newer:
            if not await redis.xrange(stream, entry_id, entry_id):
                run.problems.append(f"an entry of a newer version is gone from {stream}")
            await redis.xack(stream, stage, entry_id)
            await redis.xdel(stream, entry_id)
    if died := processes - set(run.rig.stage_urls):
        run.problems.append(f"{len(died)} processes died of it")


async def _add_newer(redis: Redis, stage: StageName) -> tuple[StageName, str, str]:
    """An entry of a later release: to be left alone until somebody of that release comes."""
    header = msgspec.json.encode({"documents": "another shape", "schema": SCHEMA_VERSION + 1})
    stream = stage.streams[0]
    entry_id: bytes = await redis.xadd(stream, {"h": header, "b": b""})  # type: ignore[assignment]
    return stage, stream, entry_id.decode()


def _unreadable(run: Run, number: int) -> dict[Any, Any]:
    draw = run.random
    noise = draw.randbytes(draw.randint(0, 200))
    if number % 250 == 0:
        return {"h": b"\xff" + bytes(_HUGE), "b": b""}
    good = {"target": "t", "lane": "normal", "documents": [], "schema": SCHEMA_VERSION}
    wrong = {
        **good,
        draw.choice(["lane", "documents", "target", "schema"]): draw.choice([None, {}, [[]], "x"]),
    }
    return draw.choice(
        [
            {"h": b"\xff" + noise, "b": noise},
            {"h": b"", "b": noise},
            {"b": noise},
            {"something": noise, "else": b"1"},
            {"h": b"[" * draw.randint(1, 100_000), "b": noise},
            {"h": msgspec.json.encode({**wrong, "lane": 7}), "b": noise},
            {"h": msgspec.json.encode(good)[: -draw.randint(1, 40)], "b": noise},
        ]
    )


async def _post_nonsense(run: Run, client: httpx.AsyncClient) -> None:
    draw = run.random
    url = f"https://nonsense.{run.site}/{draw.random()}"
    good = msgspec.json.encode(
        {"url": url, "markdown": "# Nonsense", "documents": [{"url": url}], "query": "heron"}
    )
    at = draw.randrange(len(good))
    bodies: Sequence[bytes] = [
        draw.randbytes(draw.randint(0, 500)),
        b"[" * draw.randint(1, 100_000),
        good[:at],
        good[:at] + draw.randbytes(3) + good[at:],
        msgspec.json.encode(
            draw.choice([None, 7, [], {}, {"documents": 1}, {"url": 1}, {"data": [[]], "type": 3}])
        ),
    ]
    route = draw.choice(_ROUTES)
    answer = await client.post(
        route, content=draw.choice(bodies), headers={"Content-Type": "application/json"}
    )
    if answer.status_code >= 500:
        run.problems.append(f"{route} answered {answer.status_code}: {answer.text[:200]}")


async def _drop_dead_letters(run: Run, client: httpx.AsyncClient) -> None:
    """Every unreadable entry must be a dead letter with a reason; they are counted and dropped."""
    dropped = 0
    malformed = {"code": "malformed"}
    async with asyncio.timeout(_SEEN_BY):
        while dropped < run.size.faults:
            await asyncio.sleep(0.2)
            found = await client.get("/api/dead-letters", params=malformed)
            if not all(each["error"] for each in found.json()["dead_letters"]):
                run.problems.append("a dead letter has no reason")
            answer = await client.delete("/api/dead-letters", params=malformed)
            dropped += answer.json()["dropped"]
    if dropped != run.size.faults:
        run.problems.append(f"{run.size.faults} unreadable entries became {dropped} dead letters")


SCENARIOS = {
    18: Scenario(
        "nonsense in streams and requests", send_nonsense, Size(40, 5, 60), Size(500, 60, 1000)
    ),
    19: Scenario("every request five times", repeat_requests, Size(60, 5, 4), Size(500, 60, 50)),
}
