"""The state of one document: its latest version in the stages, and its searchable version."""

import datetime as dt
from typing import Any

import asyncpg
import msgspec

from ingest.jobs.store import status_of
from shared.pipeline.outcomes import ItemState
from shared.pipeline.stages import StageName

_FIND = """
SELECT i.url, i.version, i.state, i.stage, i.job_id::text, j.crawl_id, i.lane, i.attempts, i.stages,
       i.error, i.accepted_at, i.finished_at, d.url AS known_url, d.fence, d.live_version, d.chunks,
       d.changed_at, d.seen_at, d.document_id IS NOT NULL AS is_known
FROM (SELECT $2::uuid AS document_id) wanted
LEFT JOIN webhook.targets t ON t.collection = $1 AND t.live
LEFT JOIN LATERAL (  -- without transfers to a target that is not live
  SELECT * FROM webhook.job_items
  WHERE document_id = wanted.document_id AND (target IS NULL OR target = t.target)
  ORDER BY version DESC, accepted_at DESC LIMIT 1) i ON true
LEFT JOIN webhook.jobs j ON j.job_id = i.job_id
LEFT JOIN webhook.documents d ON d.target = t.target AND d.document_id = wanted.document_id
"""


class StageVisit(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a document in one stage; all None if the document has not reached it."""

    stage: str
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    attempts: int = 0  # starts of the stage, including those that crashed
    worker: str | None = None


class DocumentState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a document. Fields of its last delivery are None once that job is deleted."""

    url: str
    document_id: str
    collection: str
    state: str  # a result status; `indexed` or `deleted` if only the registry knows it
    version: int | None  # accepted last
    live_version: int | None  # the one that search shows
    chunks: int  # of the live version
    job_id: str | None
    crawl_id: str | None
    lane: str | None
    attempts: int  # errors that were the fault of the document
    accepted_at: dt.datetime | None
    finished_at: dt.datetime | None
    changed_at: dt.datetime | None  # when the visible content changed
    seen_at: dt.datetime | None  # when it was last sent, changed or not
    stages: list[StageVisit]
    last_error: str | None


class DocumentStore:
    """The documents in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find(self, collection: str, document_id: str) -> DocumentState | None:
        """The state of the document; None if it was never accepted."""
        row = await self._pool.fetchrow(_FIND, collection, document_id)
        if row is None or (row["job_id"] is None and not row["is_known"]):
            return None
        return DocumentState(
            url=row["url"] or row["known_url"],
            document_id=document_id,
            collection=collection,
            state=_state(row),
            version=row["version"] or row["fence"],
            live_version=row["live_version"],
            chunks=row["chunks"] or 0 if row["live_version"] is not None else 0,
            job_id=row["job_id"],
            crawl_id=row["crawl_id"],
            lane=row["lane"],
            attempts=row["attempts"] or 0,
            accepted_at=row["accepted_at"],
            finished_at=row["finished_at"],
            changed_at=row["changed_at"],
            seen_at=row["seen_at"],
            stages=_visits(row),
            last_error=row["error"],
        )


def _state(row: asyncpg.Record) -> str:
    if row["state"] is not None:
        return status_of(ItemState(row["state"]), row["stage"])
    return ItemState.INDEXED if row["live_version"] is not None else ItemState.DELETED


def _visits(row: asyncpg.Record) -> list[StageVisit]:
    noted: dict[str, Any] = row["stages"] or {}
    ingest = StageVisit(
        stage="ingest", started_at=row["accepted_at"], finished_at=row["accepted_at"]
    )
    return [
        ingest,
        *(
            msgspec.convert({**noted.get(stage, {}), "stage": stage}, StageVisit)
            for stage in StageName
        ),
    ]
