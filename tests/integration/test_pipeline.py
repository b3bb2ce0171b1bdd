"""Documents in, search results out: the whole pipeline on real servers, two replicas of every
stage.
"""

import uuid
from collections import Counter
from typing import Any

import pytest

from tests.support.inspection import expected_ids, is_quiet, query, stored_ids
from tests.support.pipeline import Pipeline, kill, pages
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(400)


def assert_clean(pipeline: Pipeline) -> None:
    """Nothing is left on the way, and exactly the live versions' points are stored."""
    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    assert stored_ids(pipeline) == expected_ids(pipeline)


def test_a_crawl_of_200_pages_is_searchable_page_by_page(pipeline: Pipeline) -> None:
    crawl_id = f"crawl-{uuid.uuid4()}"
    sent = pages()
    assert len(sent) >= 200
    jobs = pipeline.crawl(sent[:110], crawl_id) + pipeline.crawl(sent[110:], crawl_id, per_event=25)
    results = [result for job in jobs for result in pipeline.finished(job, timeout=300)["results"]]

    assert [result["url"] for result in results] == [page["url"] for page in sent]
    assert [
        (result["url"], result["error"]) for result in results if result["status"] != "indexed"
    ] == []
    assert_clean(pipeline)
    for page in sent:
        found = pipeline.search(
            page["metadata"]["title"], filters={"url_prefix": page["url"]}, limit=100
        )
        assert page["url"] in {hit["url"] for hit in found}, page["url"]
    workers = query(
        pipeline, "SELECT DISTINCT stages #>> '{embedder,worker}' AS worker FROM webhook.job_items"
    )
    assert len([row for row in workers if row["worker"]]) >= 2, "both embedders shared the work"


def test_the_same_crawl_again_changes_nothing(pipeline: Pipeline) -> None:
    run = uuid.uuid4()  # its own pages, whatever other tests have sent
    sent = [
        {**page, "metadata": {**page["metadata"], "url": f"{page['url']}?run={run}"}}
        for page in pages()[:20]
    ]
    first = pipeline.crawl(sent, f"crawl-{uuid.uuid4()}", per_event=20)[0]
    pipeline.finished(first)
    before = stored_ids(pipeline)
    again = pipeline.finished(pipeline.crawl(sent, f"crawl-{uuid.uuid4()}", per_event=20)[0])
    assert Counter(result["status"] for result in again["results"]) == {"unchanged": 20}
    assert stored_ids(pipeline) == before


def test_a_changed_page_is_found_by_its_new_text_only(pipeline: Pipeline) -> None:
    url = f"https://example.com/{uuid.uuid4()}"
    for text in ("The zebra grazes.", "The walrus swims."):
        job = pipeline.finished(
            pipeline.index([{"url": url, "markdown": f"# Animals\n\n{text}\n"}])
        )
        assert job["results"][0]["status"] == "indexed"
    texts = [
        hit["text"]
        for hit in pipeline.search("zebra walrus", filters={"url_prefix": url}, mode="keyword")
    ]
    assert len(texts) == 1
    assert "walrus" in texts[0]
    assert_clean(pipeline)


def test_a_page_that_returns_to_an_old_text_ends_with_that_text(pipeline: Pipeline) -> None:
    url = f"https://example.com/{uuid.uuid4()}"
    job = pipeline.index(
        [{"url": url, "markdown": f"The {animal} eats."} for animal in ("heron", "stork", "heron")]
    )
    statuses = [result["status"] for result in pipeline.finished(job)["results"]]
    assert statuses[2] in {"indexed", "unchanged"}
    hits = pipeline.search("heron stork", filters={"url_prefix": url})
    assert ["heron" in hit["text"] for hit in hits] == [True]
    assert_clean(pipeline)


def test_a_deleted_page_is_gone_and_can_come_back(pipeline: Pipeline) -> None:
    url = f"https://example.com/{uuid.uuid4()}"
    document = {"url": url, "markdown": "The platypus lays eggs."}
    pipeline.finished(pipeline.index([document]))
    answer = pipeline.http.delete("/api/documents", params={"url": url})
    assert answer.status_code == 202
    assert pipeline.finished(answer.json()["job_id"])["results"][0]["status"] == "deleted"
    assert pipeline.search("platypus", filters={"url_prefix": url}) == []
    pipeline.finished(pipeline.index([document]))
    assert len(pipeline.search("platypus", filters={"url_prefix": url})) == 1
    assert_clean(pipeline)


def test_one_delivery_sent_five_times_is_one_job(pipeline: Pipeline) -> None:
    event = {
        "success": True, "type": "crawl.page", "id": "c", "webhookId": str(uuid.uuid4()),
        "data": [{"markdown": "Once.", "metadata": {"sourceURL": f"https://example.com/{uuid.uuid4()}"}}],
    }  # fmt: skip
    assert len({pipeline.webhook(event)["job_id"] for _ in range(5)}) == 1


def test_an_idempotency_key_is_for_one_body(pipeline: Pipeline) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    bodies = [{"url": f"https://example.com/{uuid.uuid4()}", "markdown": "Text."} for _ in range(2)]
    first, again = (
        pipeline.http.post("/api/index", json=bodies[0], headers=headers) for _ in range(2)
    )
    other = pipeline.http.post("/api/index", json=bodies[1], headers=headers)
    assert (first.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    assert other.status_code == 422


def bad_documents() -> list[tuple[str, Any]]:
    """Documents that a pipeline must survive, with what it is to make of them."""
    url = "https://example.com/bad"
    return [
        ("failed", {"markdown": "No url."}),
        ("failed", {"url": f"{url}/1", "markdown": 17}),
        ("failed", {"url": f"{url}/2", "markdown": "x" * (12 * 1024 * 1024)}),
        ("failed", {"url": f"{url}/3", "markdown": ""}),
        ("failed", {"url": f"{url}/4", "markdown": " \n\t\n"}),
        ("indexed", {"url": f"{url}/5", "markdown": "The NUL \x00 character."}),
        ("indexed", {"url": f"{url}/6", "markdown": "Half a \ud83d pair."}),
        (
            "indexed",
            {"url": f"{url}/7", "markdown": "\n".join(f"{'  ' * n}- item" for n in range(500))},
        ),
    ]


@pytest.mark.parametrize(("status", "document"), bad_documents(), ids=range(len(bad_documents())))
def test_a_bad_document_among_50_fails_alone_or_is_made_good(
    pipeline: Pipeline, status: str, document: dict[str, Any]
) -> None:
    run = uuid.uuid4()
    good = [
        {"url": f"https://example.com/{run}/{n}", "markdown": f"Good page {n}."} for n in range(49)
    ]
    results = pipeline.finished(pipeline.index([*good[:20], document, *good[20:]]))["results"]
    assert [result["status"] for result in results[:20] + results[21:]] == ["indexed"] * 49
    assert results[20]["status"] in ({status, "unchanged"} if status == "indexed" else {status})
    assert (results[20]["error"] is not None) == (status == "failed")


def test_a_line_of_five_megabytes_stalls_nobody(pipeline: Pipeline) -> None:
    # Bytes that look like no language: most of it is one word, which the splitter has to cut by
    # force.
    document = {"url": "https://example.com/long-line", "markdown": "a" * (5 * 1024 * 1024)}
    good = {"url": f"https://example.com/{uuid.uuid4()}", "markdown": "Short."}
    job = pipeline.index([document, good])
    result = pipeline.finished(job, timeout=300)["results"][0]
    assert result["status"] in {"indexed", "unchanged", "failed"}
    assert result["status"] != "failed" or result["error"]


@pytest.mark.parametrize("service", ["chunker", "embedder", "indexer"])
def test_killing_a_stage_in_mid_work_loses_and_doubles_nothing(
    pipeline: Pipeline, service: str
) -> None:
    run = uuid.uuid4()
    documents = [
        {
            "url": f"https://example.com/{run}/{n}",
            "markdown": f"# Page {n}\n\n" + f"Sentence about {run} {n}. " * 40,
        }
        for n in range(40)
    ]
    job = pipeline.index(documents)
    block_until(lambda: query(
            pipeline,
            "SELECT 1 FROM webhook.job_items WHERE job_id = $1 AND stage = $2 AND state = 'released' LIMIT 1",
            job, service,
        ), timeout=30, description=f"work in the {service}")  # fmt: skip
    victims = pipeline.pids(service)
    for pid in victims:
        kill(pid)
    finished = pipeline.finished(job, timeout=240)
    assert [result["status"] for result in finished["results"]] == ["indexed"] * 40
    assert [result["url"] for result in finished["results"]] == [
        document["url"] for document in documents
    ]
    assert_clean(pipeline)
    block_until(
        lambda: not set(pipeline.pids(service)) & set(victims),
        timeout=30,
        description=f"the {service} to be started again",
    )
