"""The routes of the streams: the load of every stage, its pending entries, and an operator's
actions on them.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from ingest.http.deadline import DEADLINE, LONG
from ingest.inspection.operator import Claimed, DeadLettered, Operator, Taken, WantedEntry
from ingest.inspection.streams import (
    EntryId,
    PendingCursor,
    PendingPage,
    StreamInspector,
    StreamStates,
)
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.faults.policy import storable
from shared.service.http import json_response
from shared.service.parameters import Text
from shared.service.routes import route
from shared.service.settings import Seconds

_NO_REASON = "an operator gave it up"
_CONFLICT = (409,)


class PendingQuery(msgspec.Struct, frozen=True, kw_only=True):
    idle_over: Seconds | None = None
    after: PendingCursor | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class EntryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on the entry of the path, see WantedEntry."""

    lane: Lane | None = None
    consumer: Text | None = None


class DeadLetterQuery(EntryQuery, frozen=True, kw_only=True):
    reason: Text = ""


class StreamsApi:
    """Handlers of /api/streams; `operators` has one for each stage."""

    def __init__(self, inspector: StreamInspector, operators: Mapping[StageName, Operator]) -> None:
        self._inspector = inspector
        self._operators = operators

    @route("GET /api/streams", "The streams of all stages", {200: StreamStates})
    async def get_streams(self, _request: web.Request) -> web.Response:
        """Depth, lag, pending entries and consumers of every stage and lane."""
        return json_response(await self._inspector.streams())

    @route("GET /api/streams/{stage}/pending", "The pending entries of a stage", {200: PendingPage})
    async def get_pending(
        self, _request: web.Request, stage: StageName, query: PendingQuery
    ) -> web.Response:
        """Each entry with its consumer, its jobs and its URLs."""
        page = await self._inspector.pending(
            stage, idle_over=query.idle_over or 0.0, after=query.after, limit=query.limit
        )
        return json_response(page)

    @route(
        "POST /api/streams/{stage}/pending/{entry_id}/claim",
        "Hold an entry for one lease",
        {200: Claimed},
        errors=_CONFLICT,
    )
    async def post_claim(
        self, _request: web.Request, stage: StageName, entry_id: EntryId, query: EntryQuery
    ) -> web.Response:
        """Keep all workers from the entry for one lease."""
        return json_response(await self._operators[stage].claim(_wanted(entry_id, query)))

    @route(
        "POST /api/streams/{stage}/pending/{entry_id}/release",
        "Release an entry to the next worker",
        {200: Taken},
        errors=_CONFLICT,
    )
    async def post_release(
        self, _request: web.Request, stage: StageName, entry_id: EntryId, query: EntryQuery
    ) -> web.Response:
        """Let the next worker that asks have the entry."""
        return json_response(await self._operators[stage].release(_wanted(entry_id, query)))

    @route(
        "POST /api/streams/{stage}/pending/{entry_id}/dead-letter",
        "Dead-letter the documents of an entry",
        {200: DeadLettered},
        errors=_CONFLICT,
    )
    async def post_dead_letter(
        self, request: web.Request, stage: StageName, entry_id: EntryId, query: DeadLetterQuery
    ) -> web.Response:
        """Write a dead letter for each document of the entry, then remove the entry."""
        request[DEADLINE].start(LONG)
        reason = storable(query.reason) or _NO_REASON
        return json_response(
            await self._operators[stage].dead_letter(_wanted(entry_id, query), reason)
        )


def _wanted(entry_id: str, query: EntryQuery) -> WantedEntry:
    return WantedEntry(id=entry_id, lane=query.lane, consumer=query.consumer)
