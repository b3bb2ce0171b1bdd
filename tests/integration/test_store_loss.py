"""A collection that is gone from Qdrant comes back by itself, with the last accepted version of every document."""

import asyncio
import uuid

import pytest

from indexer.qdrant.client import make_client
from tests.support.inspection import expected_ids, is_quiet, query, stored_ids
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(300)


def lose(pipeline: Pipeline, target: str) -> None:
    async def drop() -> None:
        client = make_client(pipeline.qdrant)
        assert await client.delete_collection(target)
        await client.close()

    asyncio.run(drop())


def index(pipeline: Pipeline, collection: str, texts: dict[str, str]) -> list[str]:
    """Index texts by URL; how each ended."""
    documents = [{"url": url, "markdown": text} for url, text in texts.items()]
    answer = pipeline.http.post("/api/index/batch", json={"documents": documents, "collection": collection})
    return [result["status"] for result in pipeline.finished(answer.json()["job_id"])["results"]]


def test_a_lost_collection_is_filled_again_without_a_new_document(pipeline: Pipeline) -> None:
    collection = f"lost-{uuid.uuid4().hex[:8]}"
    changed, unchanged, deleted = (f"https://example.com/{name}" for name in ("changed", "unchanged", "deleted"))
    index(
        pipeline, collection, {changed: "The badger digs.", unchanged: "The otter swims.", deleted: "The wolf howls."}
    )
    # So the last version decided is not the visible one, whose text is the only one kept.
    assert index(pipeline, collection, {changed: "The badger sleeps.", unchanged: "The otter swims."}) == [
        "indexed", "unchanged",
    ]  # fmt: skip
    answer = pipeline.http.delete("/api/documents", params={"url": deleted, "collection": collection})
    pipeline.finished(answer.json()["job_id"])

    lose(pipeline, f"{collection}_1")

    def is_back() -> bool:
        hits = pipeline.search("badger otter wolf", collection=collection, mode="keyword")
        return sorted(hit["text"] for hit in hits) == ["The badger sleeps.", "The otter swims."]

    block_until(is_back, timeout=120, description="both documents to be found again")
    rows = query(
        pipeline, "SELECT job_id::text, kind, total FROM webhook.jobs WHERE collection = $1 AND kind = 'reindex_job'",
        collection,
    )  # fmt: skip
    assert [row["total"] for row in rows] == [2]
    job = pipeline.finished(rows[0]["job_id"])
    assert [(result["url"], result["status"]) for result in sorted(job["results"], key=lambda r: str(r["url"]))] == [
        (changed, "indexed"), (unchanged, "indexed"),
    ]  # fmt: skip
    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    assert stored_ids(pipeline, collection) == expected_ids(pipeline, collection)
    assert index(pipeline, collection, {changed: "The badger sleeps.", unchanged: "The otter wakes."}) == [
        "unchanged", "indexed",
    ]  # fmt: skip
