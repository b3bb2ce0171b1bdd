"""Named collections: the same page in several of them, each found, replaced and deleted by itself."""

import uuid

import pytest

from tests.support.inspection import expected_ids, is_quiet, stored_ids
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(200)


def found(pipeline: Pipeline, collection: str | None) -> list[str]:
    request = {} if collection is None else {"collection": collection}
    return [hit["text"] for hit in pipeline.search("lynx", mode="keyword", **request)]


def test_a_page_in_several_collections_is_a_document_in_each(pipeline: Pipeline) -> None:
    run = uuid.uuid4().hex[:8]
    url = f"https://example.com/{run}"
    by_document, by_query, by_metadata = (
        f"{name}-{run}" for name in ("document", "query", "metadata")
    )
    one = {"url": url, "markdown": "The lynx of the document.", "collection": by_document}
    two = {"url": url, "markdown": "The lynx of the query."}
    event = {
        "success": True, "type": "crawl.page", "id": run, "webhookId": run, "metadata": {"collection": by_metadata},
        "data": [{"markdown": "The lynx of the crawl.", "metadata": {"url": url}}],
    }  # fmt: skip
    jobs = [
        pipeline.http.post("/api/index", json=one).json()["job_id"],
        pipeline.http.post("/api/index", params={"collection": by_query}, json=two).json()[
            "job_id"
        ],
        pipeline.webhook(event)["job_id"],
    ]
    assert [pipeline.finished(job)["collection"] for job in jobs[1:]] == [by_query, by_metadata]
    pipeline.finished(jobs[0])

    assert found(pipeline, by_document) == ["The lynx of the document."]
    assert found(pipeline, by_query) == ["The lynx of the query."]
    assert found(pipeline, by_metadata) == ["The lynx of the crawl."]
    assert url not in {hit["url"] for hit in pipeline.search("lynx")}
    assert found(pipeline, f"unheard-of-{run}") == []

    answer = pipeline.http.delete("/api/documents", params={"url": url, "collection": by_query})
    pipeline.finished(answer.json()["job_id"])
    assert [len(found(pipeline, name)) for name in (by_document, by_query, by_metadata)] == [
        1,
        0,
        1,
    ]
    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    for name in (by_document, by_query, by_metadata):
        assert stored_ids(pipeline, name) == expected_ids(pipeline, name)
