"""Where is my page, removing pages, and counts."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from ingest.documents.acceptance import Acceptance, Order
from ingest.documents.document import Document
from ingest.jobs.documents import DocumentStore
from ingest.jobs.prune import Scope, UnfinishedCrawlError, find_gone
from shared.jobs.model import JobKind
from shared.jobs.progress import Ended, Postponed, Progress
from shared.pipeline.ids import document_id
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, decode_header
from shared.pipeline.outcomes import ItemState
from shared.pipeline.stages import StageName
from shared.service.metrics import Metrics
from tests.support.documents import COLLECTION
from tests.support.pipeline import Pipeline
from tests.support.stage_harness import Servers, entries_of, make_dispatcher

STAGES = ["ingest", "chunker", "embedder", "indexer"]


def new_site() -> str:
    return f"{uuid.uuid4().hex}.example.com"


def page(site: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "markdown": f"# {name}\n\nAbout {name}.",
        "metadata": {"url": f"https://{site}/{name}", **metadata},
    }


def crawl(pipeline: Pipeline, crawl_id: str, *pages: dict[str, Any]) -> None:
    """Send the pages, one event each, and wait until all have ended."""
    for sent in pages:
        event = {
            "success": True,
            "type": "crawl.page",
            "id": crawl_id,
            "webhookId": uuid.uuid4().hex,
            "data": [sent],
        }
        pipeline.finished(pipeline.webhook(event)["job_id"])


def document(pipeline: Pipeline, url: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        pipeline.http.get("/api/documents", params={"url": url}).raise_for_status().json()
    )
    return found


def state(pipeline: Pipeline, url: str) -> str:
    return str(document(pipeline, url)["state"])


def test_a_page_is_found_by_any_form_of_its_url_with_every_stage(pipeline: Pipeline) -> None:
    site = new_site()
    job_id = pipeline.index([{"url": f"https://{site}/Page/?utm_source=x", "markdown": "Text."}])
    pipeline.finished(job_id)
    found = document(pipeline, f"HTTPS://{site.upper()}:443/Page#part")
    assert found["url"] == f"https://{site}/Page/?utm_source=x"
    assert (found["state"], found["job_id"], found["chunks"], found["last_error"]) == (
        "indexed",
        job_id,
        1,
        None,
    )
    assert found["live_version"] == found["version"]
    assert [stage["stage"] for stage in found["stages"]] == STAGES
    times = [stage[name] for stage in found["stages"] for name in ("started_at", "finished_at")]
    assert times == sorted(times)
    assert [stage["attempts"] for stage in found["stages"]] == [0, 1, 1, 1]
    assert all(stage["worker"] for stage in found["stages"][1:])


def test_a_deleted_page_is_a_tombstone_until_it_is_sent_again(pipeline: Pipeline) -> None:
    url = f"https://{new_site()}/"
    sent = {"url": url, "markdown": "Here today."}
    pipeline.finished(pipeline.index([sent]))
    job_id = pipeline.http.delete("/api/documents", params={"url": url}).json()["job_id"]
    pipeline.finished(job_id)
    gone = document(pipeline, url)
    assert (gone["state"], gone["live_version"], gone["chunks"], gone["job_id"]) == (
        "deleted",
        None,
        0,
        job_id,
    )
    pipeline.finished(pipeline.index([sent]))
    assert state(pipeline, url) == "indexed"  # not unchanged: nothing of it was there


def test_a_delete_of_a_page_in_progress_wins(pipeline: Pipeline) -> None:
    urls = [f"https://{new_site()}/" for _ in range(5)]
    jobs = []
    for url in urls:
        jobs.append(pipeline.index([{"url": url, "markdown": "Too late."}]))
        jobs.append(pipeline.http.delete("/api/documents", params={"url": url}).json()["job_id"])
    for job_id in jobs:
        pipeline.finished(job_id)
    assert [document(pipeline, url)["live_version"] for url in urls] == [None] * len(urls)
    assert all(pipeline.search("late", filters={"url_prefix": url}) == [] for url in urls)


@pytest.mark.parametrize(
    ("url", "status"), [("https://example.com/never-sent", 404), ("", 422), ("no url", 422)]
)
def test_an_unknown_page_is_404_and_an_invalid_url_is_422(
    pipeline: Pipeline, url: str, status: int
) -> None:
    assert pipeline.http.get("/api/documents", params={"url": url}).status_code == status


def test_only_pages_that_a_crawl_no_longer_found_are_pruned(pipeline: Pipeline) -> None:
    site, other_site, old, new = new_site(), new_site(), uuid.uuid4().hex, uuid.uuid4().hex
    names = ("same", "changed", "timed-out", "gone-404", "forgotten")
    crawl(pipeline, old, *(page(site, name) for name in names), page(other_site, "elsewhere"))
    by_api = {"url": f"https://{site}/by-api", "markdown": "By hand."}
    pipeline.finished(pipeline.index([by_api]))
    changed = {**page(site, "changed"), "markdown": "# Changed\n\nNew words."}
    timed_out = {"metadata": {"sourceURL": f"https://{site}/timed-out", "error": "Timed out"}}
    crawl(
        pipeline,
        new,
        page(site, "same"),
        changed,
        timed_out,
        page(site, "gone-404", statusCode=404),
    )
    pipeline.end_crawl(new)

    looked = pipeline.http.post("/api/prune", json={"crawl_id": new, "dry_run": True})
    assert looked.status_code == 200
    answer = looked.json()
    assert answer["urls"] == [f"https://{site}/forgotten", f"https://{site}/gone-404"]
    assert answer["sites"] == [{"domain": site, "seen": 2, "gone": 2}]
    assert state(pipeline, f"https://{site}/forgotten") == "indexed"
    part = {"crawl_id": new, "dry_run": True, "url_prefix": f"https://{site}/f"}
    assert pipeline.http.post("/api/prune", json=part).json()["urls"] == [
        f"https://{site}/forgotten"
    ]
    elsewhere = pipeline.http.post(
        "/api/prune", json={"crawl_id": new, "domains": [other_site]}
    ).json()
    assert (elsewhere["pruned"], elsewhere["job_id"]) == (0, None)

    pruned = pipeline.cli("prune", new, "--json")
    assert pruned.returncode == 0, pruned.stderr
    job = pipeline.finished(json.loads(pruned.stdout)["job_id"])
    assert (job["kind"], job["succeeded"]) == ("delete_document_job", 2)
    states = {
        name: document(pipeline, f"https://{site}/{name}")["live_version"]
        for name in (*names, "by-api")
    }
    assert {name for name, live_version in states.items() if live_version is None} == {
        "gone-404",
        "forgotten",
    }
    assert state(pipeline, f"https://{other_site}/elsewhere") == "indexed"
    assert pipeline.http.post("/api/prune", json={"crawl_id": new}).json()["pruned"] == 0
    crawl(pipeline, uuid.uuid4().hex, page(site, "forgotten"))
    assert state(pipeline, f"https://{site}/forgotten") == "indexed"


def test_a_crawl_without_a_completed_event_prunes_only_with_assume_completed(
    pipeline: Pipeline,
) -> None:
    site, old, new = new_site(), uuid.uuid4().hex, uuid.uuid4().hex
    crawl(pipeline, old, page(site, "seen"), page(site, "not-yet-seen"))
    crawl(pipeline, new, page(site, "seen"))
    wanted = {"crawl_id": new, "dry_run": True}
    early = pipeline.http.post("/api/prune", json=wanted)
    assert (early.status_code, "has not reported its completion" in early.json()["detail"]) == (
        409,
        True,
    )
    pipeline.end_crawl(new, "crawl.cancelled")
    cancelled = pipeline.http.post("/api/prune", json=wanted)
    assert (cancelled.status_code, "crawl.cancelled" in cancelled.json()["detail"]) == (409, True)
    asked = pipeline.cli("prune", new, "--dry-run", "--assume-completed", "--json")
    assert json.loads(asked.stdout)["urls"] == [f"https://{site}/not-yet-seen"]
    pipeline.end_crawl(new)
    assert pipeline.http.post("/api/prune", json=wanted).json()["pruned"] == 1


def test_a_prune_without_a_crawl_or_with_a_misspelt_name_is_refused(pipeline: Pipeline) -> None:
    assert pipeline.http.post("/api/prune", json={"crawl_id": "no such crawl"}).status_code == 404
    for body in (
        {},
        {"crawl_id": "c", "dryrun": True},
        {"crawl_id": "c\0"},
        {"crawl_id": "c", "collection": "/"},
    ):
        assert pipeline.http.post("/api/prune", json=body).status_code == 422, body


def test_a_crawls_documents_are_counted_by_state(pipeline: Pipeline) -> None:
    crawl_id, site = uuid.uuid4().hex, new_site()
    crawl(
        pipeline,
        crawl_id,
        page(site, "one"),
        page(site, "two"),
        page(site, "one"),
        page(site, "bad", statusCode=500),
    )
    stats = pipeline.http.get("/api/stats", params={"crawl_id": crawl_id}).json()
    assert stats["documents"] == {"indexed": 2, "unchanged": 1, "failed": 1}
    assert stats["ended_as"] is None
    pipeline.end_crawl(crawl_id)
    assert (
        pipeline.http.get("/api/stats", params={"crawl_id": crawl_id}).json()["ended_as"]
        == "crawl.completed"
    )
    assert (
        stats["jobs"],
        stats["open_jobs"],
        stats["total"],
        stats["succeeded"],
        stats["failed"],
    ) == (4, 0, 4, 3, 1)
    assert pipeline.http.get("/api/stats", params={"crawl_id": "none"}).status_code == 404
    everything = json.loads(pipeline.cli("stats", "--json").stdout)
    assert {collection["collection"] for collection in everything["collections"]} >= {
        pipeline.collection
    }
    assert everything["jobs"]["succeeded"] >= 3


def test_the_command_line_shows_follows_and_deletes(pipeline: Pipeline) -> None:
    url = f"https://{new_site()}/"
    job_id = pipeline.index([{"url": url, "markdown": "Text."}])
    followed = pipeline.cli("jobs", "show", job_id, "--follow", "--json")
    assert json.loads(followed.stdout)["status"] == "succeeded"
    assert "succeeded: 1 succeeded, 0 failed of 1" in followed.stderr
    assert json.loads(pipeline.cli("documents", "show", url, "--json").stdout)["state"] == "indexed"
    for_people = pipeline.cli("documents", "show", url).stdout
    assert "indexed" in for_people
    assert all(stage in for_people for stage in STAGES)
    deleted = pipeline.cli("documents", "delete", url, "--json")
    pipeline.finished(json.loads(deleted.stdout)["job_id"])
    assert state(pipeline, url) == "deleted"
    assert pipeline.cli("documents", "show", f"{url}unknown").returncode == 4


@pytest.mark.asyncio(loop_scope="session")
class TestOnTheWay:
    async def test_a_version_that_failed_leaves_the_one_before_visible_and_says_why(
        self, servers: Servers
    ) -> None:
        store = DocumentStore(servers.pool)
        await accept_page(servers, "c1")
        chunker = Progress(servers.pool, StageName.CHUNKER, "worker-1")
        (ref,) = await released_refs(servers)
        await chunker.start([ref])
        await chunker.postpone([Postponed(ref=ref, delay=0, reason="flaky", attempts=1)])
        waiting = await store.find(COLLECTION, ref.document_id)
        assert waiting is not None
        assert (waiting.state, waiting.last_error, waiting.attempts) == ("running", "flaky", 1)

        (again,) = await released_refs(servers)
        await chunker.start([again])
        await chunker.end(
            [Ended(ref=again, state=ItemState.FAILED, code="bad", error="broken", attempts=1)], 1
        )
        failed = await store.find(COLLECTION, ref.document_id)
        assert failed is not None
        assert (failed.state, failed.last_error, failed.attempts, failed.live_version) == (
            "failed",
            "broken",
            2,
            None,
        )
        assert [(visit.stage, visit.attempts) for visit in failed.stages] == [
            ("ingest", 0), ("chunker", 2), ("embedder", 0), ("indexer", 0),
        ]  # fmt: skip

    async def test_a_crawl_with_open_jobs_prunes_nothing(self, servers: Servers) -> None:
        await accept_page(servers, "c2")
        with pytest.raises(UnfinishedCrawlError):
            await find_gone(servers.pool, Scope(crawl_id="c2"), COLLECTION)
        assert await find_gone(servers.pool, Scope(crawl_id="c3"), COLLECTION) is None


async def accept_page(servers: Servers, crawl_id: str) -> str:
    url = "https://example.com/page"
    acceptance = Acceptance(servers.pool, Metrics(), collection=COLLECTION, timeout=600)
    order = Order(kind=JobKind.INDEX_BATCH, lane=Lane.NORMAL, source=crawl_id, crawl_id=crawl_id)
    await acceptance.index(
        order, [Document(url=url, canonical_url=url, markdown="Text.")], lambda: None
    )
    return document_id(COLLECTION, url)


async def released_refs(servers: Servers) -> list[DocumentRef]:
    """What the dispatcher releases now."""
    await servers.redis.delete(StageName.CHUNKER.stream(Lane.NORMAL))
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    async with asyncio.timeout(10):
        while not (entries := await entries_of(servers, StageName.CHUNKER.stream(Lane.NORMAL))):
            await dispatcher.release_some()
    return [ref for _, fields in entries for ref in decode_header(fields[b"h"]).documents]
