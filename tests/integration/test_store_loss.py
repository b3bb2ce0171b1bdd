"""A collection that is gone from Qdrant comes back by itself, with the last accepted version of
every document.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

from indexer.qdrant.client import make_client
from tests.support.inspection import expected_ids, is_quiet, query, stored_ids
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(300)


def lose(pipeline: Pipeline, target: str) -> None:
    async def drop(client: AsyncQdrantClient) -> None:
        assert await client.delete_collection(target)

    asyncio.run(with_client(pipeline, drop))


def lose_points(pipeline: Pipeline, target: str, url: str) -> None:
    """Delete the points of one page, as a person or an older snapshot does."""

    async def delete(client: AsyncQdrantClient) -> None:
        is_page = models.FieldCondition(key="url", match=models.MatchValue(value=url))
        await client.delete(
            target, models.FilterSelector(filter=models.Filter(must=[is_page])), wait=True
        )

    asyncio.run(with_client(pipeline, delete))


async def with_client(
    pipeline: Pipeline, act: Callable[[AsyncQdrantClient], Awaitable[None]]
) -> None:
    client = make_client(pipeline.qdrant)
    await act(client)
    await client.close()


def index(pipeline: Pipeline, collection: str, texts: dict[str, str]) -> list[str]:
    """Index texts by URL; how each ended."""
    documents = [{"url": url, "markdown": text} for url, text in texts.items()]
    answer = pipeline.http.post(
        "/api/index/batch", json={"documents": documents, "collection": collection}
    )
    return [result["status"] for result in pipeline.finished(answer.json()["job_id"])["results"]]


def test_a_lost_collection_is_filled_again_without_a_new_document(pipeline: Pipeline) -> None:
    collection = f"lost-{uuid.uuid4().hex[:8]}"
    changed, unchanged, deleted = (
        f"https://example.com/{name}" for name in ("changed", "unchanged", "deleted")
    )
    index(
        pipeline,
        collection,
        {changed: "The badger digs.", unchanged: "The otter swims.", deleted: "The wolf howls."},
    )
    # So the last version decided is not the visible one, whose text is the only one kept.
    assert index(pipeline, collection, {changed: "The badger sleeps.", unchanged: "The otter swims."}) == [
        "indexed", "unchanged",
    ]  # fmt: skip
    answer = pipeline.http.delete(
        "/api/documents", params={"url": deleted, "collection": collection}
    )
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


def found(pipeline: Pipeline, collection: str) -> list[str]:
    hits = pipeline.search("badger otter", collection=collection, mode="keyword")
    return sorted(hit["text"] for hit in hits)


def verify(pipeline: Pipeline, collection: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and row of `millstream verify`."""
    ran = pipeline.cli("verify", "--collection", collection, *options, "--json")
    [row] = json.loads(ran.stdout)["targets"]
    return ran.returncode, row


def test_points_that_were_deleted_behind_our_back_are_indexed_again(pipeline: Pipeline) -> None:
    collection = f"short-{uuid.uuid4().hex[:8]}"
    badger, otter = "https://example.com/badger", "https://example.com/otter"
    texts = {badger: "The badger digs.", otter: "The otter swims."}
    index(pipeline, collection, texts)
    target = f"{collection}_1"
    assert verify(pipeline, collection) == (
        0,
        {"target": target, "documents": 2, "short": 0, "requeued": 0},
    )

    lose_points(pipeline, target, badger)
    assert verify(pipeline, collection) == (
        1,
        {"target": target, "documents": 2, "short": 1, "requeued": 0},
    )
    assert verify(pipeline, collection, "--repair")[0] == 0
    block_until(
        lambda: found(pipeline, collection) == sorted(texts.values()),
        timeout=60,
        description="both found",
    )
    assert verify(pipeline, collection) == (
        0,
        {"target": target, "documents": 2, "short": 0, "requeued": 0},
    )
    assert index(pipeline, collection, texts) == ["unchanged", "unchanged"]
