"""Reads a pipeline's servers for tests: streams, points, and the points there should be."""

import asyncio
from typing import Any

import asyncpg
from redis.asyncio import Redis

from indexer.qdrant.client import make_client
from shared.pipeline.ids import point_id
from shared.pipeline.stages import StageName
from tests.support.pipeline import Pipeline


def is_quiet(pipeline: Pipeline) -> bool:
    """Whether all streams and all lists of pending entries are empty."""
    return asyncio.run(_entries(pipeline)) == 0


def stored_ids(pipeline: Pipeline, collection: str | None = None) -> set[str]:
    """The ids of all points in the store, of a collection or a target."""
    return asyncio.run(_stored_ids(pipeline, collection or pipeline.collection))


def expected_ids(pipeline: Pipeline, collection: str | None = None) -> set[str]:
    """The ids that the registry's live versions stand for."""
    rows = query(
        pipeline,
        "SELECT document_id::text, live_version, chunks "
        "FROM webhook.documents d JOIN webhook.targets t USING (target) "
        "WHERE t.collection = $1 AND t.live AND live_version IS NOT NULL",
        collection or pipeline.collection,
    )
    return {
        point_id(row["document_id"], row["live_version"], n)
        for row in rows
        for n in range(row["chunks"])
    }


def query(pipeline: Pipeline, statement: str, *arguments: Any) -> list[dict[str, Any]]:
    """Run one statement in the pipeline's database."""

    async def run() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(pipeline.env["WEBHOOK_DATABASE_URL"])
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(run())


async def _entries(pipeline: Pipeline) -> int:
    async with Redis.from_url(pipeline.env["WEBHOOK_REDIS_URL"]) as redis:
        total = 0
        for stage in StageName:
            for stream in stage.streams:
                total += await redis.xlen(stream)
                pending: Any = await redis.xpending(stream, stage)
                total += pending["pending"]
        return total


async def _stored_ids(pipeline: Pipeline, collection: str) -> set[str]:
    client = make_client(pipeline.qdrant)
    try:
        ids: set[str] = set()
        offset: Any = None
        while True:
            points, offset = await client.scroll(
                collection, limit=1000, offset=offset, with_payload=False, with_vectors=False
            )
            ids |= {str(point.id) for point in points}
            if offset is None:
                return ids
    finally:
        await client.close()
