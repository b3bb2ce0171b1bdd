"""A job's events: what a client sees while it watches, when it comes back, and at the end."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingest.http.job_events import Event, JobFeed
from ingest.jobs.control import JobControl
from ingest.jobs.store import JobStore
from tests.support.pipeline import Pipeline
from tests.support.stage_harness import Servers, accept_documents, end, release


def events(pipeline: Pipeline, job_id: str, **headers: str) -> Iterator[dict[str, Any]]:
    """The events of a job as they come, until the answer ends."""
    with pipeline.http.stream(
        "GET", f"/api/jobs/{job_id}/events", headers=headers, timeout=60
    ) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        fields: dict[str, Any] = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if not line and "event" in fields:
                yield fields
                fields = {}
            elif name:
                fields[name] = json.loads(value) if name == "data" else value


def index(pipeline: Pipeline, count: int) -> str:
    return pipeline.index(
        [
            {"url": f"https://example.com/{uuid.uuid4()}", "markdown": f"# Page {n}"}
            for n in range(count)
        ]
    )


def test_the_events_of_a_job_are_progress_all_results_in_order_and_end(pipeline: Pipeline) -> None:
    job_id = index(pipeline, 30)
    seen = list(events(pipeline, job_id))
    assert seen[0]["event"] == "progress"
    results = [event for event in seen if event["event"] == "result"]
    assert [event["data"]["position"] for event in results] == list(range(30))
    assert [event["id"] for event in results] == [str(n) for n in range(1, 31)]
    assert {event["data"]["status"] for event in results} == {"indexed"}
    assert (seen[-1]["event"], seen[-1]["id"]) == ("end", "end")
    assert (seen[-1]["data"]["status"], seen[-1]["data"]["succeeded"]) == ("succeeded", 30)


def test_a_client_that_reconnects_gets_only_new_results(pipeline: Pipeline) -> None:
    job_id = index(pipeline, 8)
    for event in events(pipeline, job_id):
        if event.get("id") == "3":
            break
    seen = [
        event
        for event in events(pipeline, job_id, **{"Last-Event-ID": "3"})
        if event["event"] == "result"
    ]
    assert [event["data"]["position"] for event in seen] == [3, 4, 5, 6, 7]


def test_a_client_that_has_received_the_end_gets_204(pipeline: Pipeline) -> None:
    job_id = index(pipeline, 1)
    pipeline.finished(job_id)
    path = f"/api/jobs/{job_id}/events"
    assert pipeline.http.get(path, headers={"Last-Event-ID": "end"}).status_code == 204
    assert pipeline.http.get(path, params={"last_event_id": "end"}).status_code == 204


@pytest.mark.parametrize("last_seen", ["-1", "x", "1" * 11, "\u0663"])
def test_an_invalid_event_id_is_refused(pipeline: Pipeline, last_seen: str) -> None:
    job_id = index(pipeline, 1)
    path = f"/api/jobs/{job_id}/events"
    assert pipeline.http.get(path, params={"last_event_id": last_seen}).status_code == 422


def test_events_require_the_secret_and_an_existing_job(pipeline: Pipeline) -> None:
    path = f"/api/jobs/{uuid.uuid4()}/events"
    assert pipeline.http.get(path).status_code == 404
    assert httpx.get(pipeline.env["MILLSTREAM_URL"] + path, trust_env=False).status_code == 401


async def news(feed: JobFeed) -> list[Event]:
    return [event async for event in feed.poll()]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_result_waits_for_those_before_it_and_the_counters_do_not(servers: Servers) -> None:
    job_id = await accept_documents(servers, 3)
    refs = await release(servers, job_id)
    feed = JobFeed(JobStore(servers.pool), job_id, 0)
    assert [event.name for event in await news(feed)] == ["progress"]
    assert await news(feed) == []
    await end(servers, refs[1:2])
    [*_, counted] = await news(feed)
    assert (counted.name, counted.data.succeeded, counted.id) == ("progress", 1, None)
    await end(servers, refs[:1])
    assert [(event.name, event.id) for event in await news(feed)] == [
        ("progress", None),
        ("result", "1"),
        ("result", "2"),
    ]
    assert not feed.is_over
    await end(servers, refs[2:])
    assert [event.name for event in await news(feed)] == ["progress", "result", "end"]
    assert feed.is_over


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("seen", [0, 1, 499, 500, 501, 1200, 1201])
async def test_a_reconnected_client_gets_the_missing_results_once_and_the_end(
    servers: Servers, seen: int
) -> None:
    job_id = await accept_documents(servers, 1200)  # more than two pages
    await end(servers, await release(servers, job_id))
    first, *results, last = await news(JobFeed(JobStore(servers.pool), job_id, seen))
    assert [result.data.position for result in results] == list(range(seen, 1200))
    assert [result.id for result in results] == [
        str(position + 1) for position in range(seen, 1200)
    ]
    assert (first.name, last.name, last.id) == ("progress", "end", "end")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_reopened_job_ends_again_without_old_results(servers: Servers) -> None:
    job_id = await accept_documents(servers, 2)
    await end(servers, await release(servers, job_id), "bad")
    await JobControl(servers.pool).retry_failed(job_id)
    feed = JobFeed(JobStore(servers.pool), job_id, 2)  # as one who has seen the end begins
    assert [event.name for event in await news(feed)] == ["progress"]
    await end(servers, await release(servers, job_id))
    names = [event.name for event in await news(feed)]
    assert (names, feed.is_over) == (["progress", "end"], True)
