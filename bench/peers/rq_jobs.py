"""The job of the RQ batch worker: gathers over the documents of a batch, as such workers do.

A worker process keeps its event loop and its clients from job to job. A document that fails is
lost, unless the job has retries: then each request is tried again with exponential backoff.
"""

import asyncio
import os
import random
import uuid
from functools import cache
from typing import Any

import httpx
from contest import COLLECTION
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import PointStruct

_INPUTS = 32


class Pool:
    """The clients of one worker process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tei = httpx.AsyncClient(base_url=os.environ["PEER_TEI"], timeout=30.0)
        self.qdrant = AsyncQdrantClient(url=os.environ["PEER_QDRANT"], check_compatibility=False)


@cache
def pool() -> Pool:
    return Pool()


def index_batch(pages: list[dict[str, Any]], *, tries: int = 1) -> int:
    """Index the pages of one batch; returns how many failed."""
    shared = pool()
    return shared.loop.run_until_complete(_gather(shared, pages, tries))


async def _gather(shared: Pool, pages: list[dict[str, Any]], tries: int) -> int:
    results = await asyncio.gather(
        *(_index(shared, page, tries) for page in pages), return_exceptions=True
    )
    return sum(isinstance(result, BaseException) for result in results)


async def _index(shared: Pool, page: dict[str, Any], tries: int) -> None:
    vectors: list[list[float]] = []
    chunks = page["chunks"]
    for start in range(0, len(chunks), _INPUTS):
        vectors += await _embed(shared, chunks[start : start + _INPUTS], tries)
    points = [
        PointStruct(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{page['url']} {number}")),
            vector=vector,
            payload={"url": page["url"], "text": text, "chunk_index": number},
        )
        for number, (text, vector) in enumerate(zip(chunks, vectors, strict=True))
    ]
    await shared.qdrant.upsert(COLLECTION, points, wait=True)


async def _embed(shared: Pool, texts: list[str], tries: int) -> list[list[float]]:
    for number in range(tries):
        answer = await shared.tei.post("/embed", json={"inputs": texts, "truncate": False})
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS and number + 1 < tries:
            await asyncio.sleep(random.uniform(0, 0.1 * 2**number))
            continue
        answer.raise_for_status()
        vectors: list[list[float]] = answer.json()
        return vectors
    raise AssertionError("unreachable")
