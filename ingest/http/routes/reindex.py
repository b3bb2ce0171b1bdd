"""The routes that change the model or the chunking of a collection: start, follow, roll back,
cancel.

The elected dispatcher does the work (`ingest/dispatch/reindexing.py`), so no client has to wait.
"""

import asyncpg
import msgspec
import structlog
from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.http.parameters import CollectionQuery
from ingest.jobs.control import JobControl
from ingest.jobs.new_targets import NewTargets
from ingest.jobs.reindexes import Reindexes, ReindexState
from shared.jobs.operations import OperationLog
from shared.jobs.targets import Targets, TargetSettings, TeiUrls
from shared.runtime.recorder import report_job
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response
from shared.service.parameters import CollectionName
from shared.service.routes import route

log = structlog.get_logger()

_NOT_NOW = (404, 409)


class ReindexRequest(TargetSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the new target; those not given stay as they are."""

    collection: CollectionName
    defaults: bool = (
        False  # settings not given are those of the services, not those of the collection
    )
    skip_failed: bool = False  # switch although documents could not be transferred


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    collection: CollectionName
    tei_url: TeiUrls | None = None  # the present servers of the earlier model
    skip_failed: bool = False


class ReindexesQuery(msgspec.Struct, frozen=True, kw_only=True):
    collection: CollectionName | None = None


class ReindexList(msgspec.Struct, frozen=True, kw_only=True):
    reindexes: list[ReindexState]  # the last one of each collection


class CancelledReindex(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    target: str  # that was being filled
    was_cancelled: bool  # before this request, which then only does what is left
    cancelled: int  # transfers that had not started
    discarded: int  # transfers in the streams: the stages discard them
    dead_letters: int  # of transfers that had failed: deleted with their target


class DroppedTargets(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    dropped: list[str]  # targets


class ReindexApi:
    """Handlers of /api/reindex."""

    def __init__(
        self, pool: PostgresPool, new_targets: NewTargets, operations: OperationLog
    ) -> None:
        self._reindexes = Reindexes(pool)
        self._targets = Targets(pool)
        self._new_targets = new_targets
        self._control = JobControl(pool)
        self._operations = operations

    @route("GET /api/reindex", "Progress of reindexes", {200: ReindexList})
    async def get_reindexes(self, request: web.Request, query: ReindexesQuery) -> web.Response:
        """The last reindex of each collection."""
        request[DEADLINE].start(LONG)
        return json_response(ReindexList(reindexes=await self._reindexes.states(query.collection)))

    @route(
        "POST /api/reindex",
        "Change the model or the chunking of a collection",
        {202: ReindexState},
        errors=_NOT_NOW,
    )
    async def post_reindex(self, request: web.Request, body: ReindexRequest) -> web.Response:
        """Create a new target for a collection and start to fill it."""
        request[DEADLINE].start(LONG)
        live = await self._targets.live(body.collection)
        if live is None:
            raise _no_collection(body.collection)
        self._check_free(await self._reindexes.states(body.collection))
        settings = merged(TargetSettings() if body.defaults else live, body)
        try:
            target = await self._new_targets.create(body.collection, settings, live=False)
            return await self._start(
                body.collection, target.target, is_rollback=False, skip_failed=body.skip_failed
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise _in_progress(body.collection) from error

    @route(
        "POST /api/reindex/rollback",
        "Return to the previous target of a collection",
        {202: ReindexState},
        errors=_NOT_NOW,
    )
    async def post_rollback(self, request: web.Request, body: RollbackRequest) -> web.Response:
        """Bring the target that served the collection before up to date, then switch back to it."""
        request[DEADLINE].start(LONG)
        if body.tei_url is not None:
            await self._new_targets.ask(body.tei_url)
        target = await self._reindexes.last_retired(body.collection, body.tei_url)
        if target is None:
            raise ProblemError(
                404, "Not Found", f"no previous target of {body.collection!r} is kept"
            )
        self._new_targets.check(await self._targets.get(target))
        try:
            return await self._start(
                body.collection, target, is_rollback=True, skip_failed=body.skip_failed
            )
        except asyncpg.UniqueViolationError as error:
            raise _in_progress(body.collection) from error

    @route(
        "POST /api/reindex/skip-failed",
        "Switch without the documents that cannot be transferred",
        {200: ReindexState},
        errors=(404,),
    )
    async def post_skip_failed(self, _request: web.Request, query: CollectionQuery) -> web.Response:
        """Let a reindex switch although documents could not be transferred."""
        if not await self._reindexes.skip_failed(query.collection):
            raise _no_reindex(query.collection)
        return await self._answer(query.collection)

    @route("DELETE /api/reindex", "Cancel a reindex", {200: CancelledReindex}, errors=(404,))
    async def delete_reindex(self, request: web.Request, query: CollectionQuery) -> web.Response:
        """Cancel a reindex; the collection stays as it is. May be repeated."""
        request[DEADLINE].start(LONG)
        reindex = await self._reindexes.cancel(query.collection)
        if reindex is None:
            raise _no_reindex(query.collection)
        cancelled = 0
        for job_id in reindex.jobs:
            cancellation = await self._control.cancel(job_id)
            cancelled += cancellation.cancelled
            for job in cancellation.jobs:
                report_job(job, self._operations)
        log.info("Reindex cancelled", collection=query.collection, transfers=cancelled)
        return json_response(
            CancelledReindex(
                collection=query.collection,
                target=reindex.target,
                was_cancelled=reindex.is_repeated,
                cancelled=cancelled,
                discarded=reindex.discarded,
                dead_letters=await self._targets.close_dead_letters(reindex.target),
            )
        )

    @route(
        "DELETE /api/reindex/retired", "Drop the targets kept for a rollback", {200: DroppedTargets}
    )
    async def delete_retired(self, _request: web.Request, query: CollectionQuery) -> web.Response:
        """Drop the targets kept for a rollback; indexers delete their points within seconds."""
        dropped = await self._targets.drop_retired(query.collection)
        return json_response(DroppedTargets(collection=query.collection, dropped=list(dropped)))

    async def _start(
        self, collection: str, target: str, *, is_rollback: bool, skip_failed: bool
    ) -> web.Response:
        if not await self._reindexes.start(
            target, is_rollback=is_rollback, skip_failed=skip_failed
        ):
            raise _in_progress(collection)
        log.info("Reindex started", collection=collection, target=target, is_rollback=is_rollback)
        return await self._answer(collection, 202)

    async def _answer(self, collection: str, status: int = 200) -> web.Response:
        (state,) = await self._reindexes.states(collection)
        return json_response(state, status)

    def _check_free(self, states: list[ReindexState]) -> None:
        """Avoid a useless target; a concurrent request is still caught by the unique index."""
        for state in states:
            if state.finished_at is None:
                raise _in_progress(state.collection)


def merged(base: TargetSettings, wanted: TargetSettings) -> TargetSettings:
    """The settings of a target: those of `wanted` that are set, else those of `base`."""
    names = TargetSettings.__struct_fields__
    given = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    return TargetSettings(**{name: getattr(base, name) for name in names} | given)


def _no_collection(collection: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"there is no collection {collection!r}")


def _no_reindex(collection: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"no reindex of {collection!r} is in progress")


def _in_progress(collection: str) -> ProblemError:
    return ProblemError(409, "Conflict", f"a reindex of {collection!r} is already in progress")
