"""Repeats of one delivery, sent at the same moment to every replica of ingest, are one job."""

import hmac
import itertools
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.inspection import query
from tests.support.pipeline import Pipeline

COPIES = 6

Request = tuple[str, bytes, dict[str, str]]  # path, body, headers


def event(unique: str, **fields: Any) -> dict[str, Any]:
    """A webhook with one page of its own, without anything that it is known by but its body."""
    page = {"markdown": f"# {unique}", "metadata": {"url": f"https://example.com/{unique}"}}
    return {
        "success": True,
        "type": "crawl.page",
        "id": f"crawl-{unique}",
        "data": [page],
        **fields,
    }


def with_scrape_id(sent: dict[str, Any], scrape_id: str) -> dict[str, Any]:
    """As older servers send it: without webhookId, the scrape's id in the page's metadata."""
    page = sent["data"][0]
    return {**sent, "data": [{**page, "metadata": {**page["metadata"], "scrapeId": scrape_id}}]}


def as_webhook(pipeline: Pipeline, sent: dict[str, Any]) -> Request:
    body = json.dumps(sent).encode()
    signature = hmac.digest(pipeline.env["WEBHOOK_SECRET"].encode(), body, "sha256").hex()
    return "/api/webhook/firecrawl", body, {"X-Firecrawl-Signature": f"sha256={signature}"}


def as_api_call(pipeline: Pipeline, path: str, body: bytes, key: str) -> Request:
    return (
        path,
        body,
        {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}", "Idempotency-Key": key},
    )


def jobs_of(pipeline: Pipeline, *requests: Request) -> list[str]:
    """Send the requests at once, in turns to each ingest; their job ids."""
    urls = itertools.cycle(row["url"] for row in pipeline.processes if row["service"] == "ingest")
    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(job_of, requests, urls))


def job_of(request: Request, url: str) -> str:
    path, body, headers = request
    answer = httpx.post(url + path, content=body, headers=headers, timeout=30.0, trust_env=False)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def requests_of_one_delivery(pipeline: Pipeline, kind: str) -> list[Request]:
    unique = uuid.uuid4().hex
    sent = event(unique)
    match kind:
        case "webhookId":  # the attempts of one delivery may differ in everything else
            return [
                as_webhook(pipeline, {**sent, "webhookId": unique, "attempt": n})
                for n in range(COPIES)
            ]
        case "scrapeId":
            return [
                as_webhook(pipeline, {**with_scrape_id(sent, unique), "attempt": n})
                for n in range(COPIES)
            ]
        case "body":
            return [as_webhook(pipeline, sent)] * COPIES
        case "one":
            return [
                as_api_call(pipeline, "/api/index", json.dumps(document(unique)).encode(), unique)
            ] * COPIES
        case _:
            body = json.dumps({"documents": [document(unique), document(unique + "b")]}).encode()
            return [as_api_call(pipeline, "/api/index/batch", body, unique)] * COPIES


def document(unique: str) -> dict[str, str]:
    return {"url": f"https://example.com/{unique}", "markdown": f"# {unique}"}


@pytest.mark.parametrize("kind", ["webhookId", "scrapeId", "body", "one", "many"])
def test_repeats_at_the_same_moment_to_several_replicas_are_one_job(
    pipeline: Pipeline, kind: str
) -> None:
    requests = requests_of_one_delivery(pipeline, kind)
    (job_id,) = set(jobs_of(pipeline, *requests))
    items = query(
        pipeline, "SELECT count(*) AS n FROM webhook.job_items WHERE job_id = $1", job_id
    )[0]["n"]
    document_ids = query(
        pipeline,
        "SELECT DISTINCT document_id FROM webhook.job_items WHERE job_id = $1 ORDER BY 1",
        job_id,
    )
    everywhere = query(
        pipeline, "SELECT count(*) AS n FROM webhook.job_items WHERE document_id = ANY ($1)",
        [row["document_id"] for row in document_ids],
    )  # fmt: skip
    assert everywhere[0]["n"] == items
    pipeline.finished(job_id)
    assert jobs_of(pipeline, requests[0]) == [job_id]  # an ended job is not made again, nor revived


def test_what_only_looks_alike_is_no_repeat(pipeline: Pipeline) -> None:
    unique = uuid.uuid4().hex
    sent = event(unique)
    others = [
        {**sent, "webhookId": f"{unique}-1"},
        {**sent, "webhookId": f"{unique}-2"},  # the same page, scraped again
        with_scrape_id(sent, f"{unique}-1"),
        with_scrape_id(sent, f"{unique}-2"),
        with_scrape_id({**sent, "id": "another crawl"}, f"{unique}-1"),
        with_scrape_id({**sent, "type": "batch_scrape.page"}, f"{unique}-1"),
        sent,
    ]
    jobs = jobs_of(pipeline, *(as_webhook(pipeline, other) for other in others))
    assert len(set(jobs)) == len(others)


def test_the_same_key_on_another_route_or_query_is_refused(pipeline: Pipeline) -> None:
    key = uuid.uuid4().hex
    path, body, headers = as_api_call(
        pipeline, "/api/index", json.dumps(document(key)).encode(), key
    )
    jobs_of(pipeline, (path, body, headers))
    for other in ("/api/index?lane=low", "/api/index/batch"):
        answer = pipeline.http.post(other, content=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 422, answer.text
