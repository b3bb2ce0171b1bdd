"""The routes that change a collection's model or chunking: start, follow, roll back, give up. The work is done by the
elected dispatcher (ingest/dispatch/reindexing.py), so whoever asked may leave.
"""

import asyncpg
import msgspec
import structlog
from aiohttp import web

from ingest.documents.decoding import decode
from ingest.http.deadline import DEADLINE, LONG
from ingest.http.new_targets import NewTargets
from ingest.http.queries import collection_query, required_collection
from ingest.jobs.control import JobControl
from ingest.jobs.reindexes import Reindexes, ReindexState
from shared.jobs.operations import OperationLog
from shared.jobs.targets import Targets, TargetSettings, TeiUrls
from shared.runtime.recorder import report_job
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response

log = structlog.get_logger()


class ReindexRequest(TargetSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the new target is to have; what is not given stays as it is."""

    collection: str
    defaults: bool = False  # what is not given is as the services are set, not as the collection has it
    skip_failed: bool = False  # switch although documents could not be transferred


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    collection: str
    tei_url: TeiUrls | None = None  # where the earlier model is served now
    skip_failed: bool = False


class ReindexList(msgspec.Struct, frozen=True, kw_only=True):
    reindexes: list[ReindexState]  # the last one of each collection


class CancelledReindex(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    cancelled: int  # transfers that had not started


class DroppedTargets(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    dropped: list[str]  # targets


class ReindexApi:
    """Handlers of /api/reindex."""

    def __init__(self, pool: PostgresPool, new_targets: NewTargets, operations: OperationLog) -> None:
        self._reindexes = Reindexes(pool)
        self._targets = Targets(pool)
        self._new_targets = new_targets
        self._control = JobControl(pool)
        self._operations = operations

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/reindex", self.get_reindexes)
        app.router.add_post("/api/reindex", self.post_reindex)
        app.router.add_delete("/api/reindex", self.delete_reindex)
        app.router.add_post("/api/reindex/rollback", self.post_rollback)
        app.router.add_post("/api/reindex/skip-failed", self.post_skip_failed)
        app.router.add_delete("/api/reindex/retired", self.delete_retired)

    async def get_reindexes(self, request: web.Request) -> web.Response:
        """How far the last reindex of each collection is."""
        request[DEADLINE].start(LONG)
        return json_response(ReindexList(reindexes=await self._reindexes.states(collection_query(request))))

    async def post_reindex(self, request: web.Request) -> web.Response:
        """Make a new target for a collection, and begin to fill it."""
        wanted = decode(_reindex_decoder, await request.read())
        request[DEADLINE].start(LONG)
        collection = required_collection(wanted.collection)
        live = await self._targets.live(collection)
        if live is None:
            raise _no_collection(collection)
        self._check_free(await self._reindexes.states(collection))
        settings = merged(TargetSettings() if wanted.defaults else live, wanted)
        try:
            target = await self._new_targets.create(collection, settings, live=False)
            return await self._start(collection, target.target, is_rollback=False, skip_failed=wanted.skip_failed)
        except asyncpg.UniqueViolationError as error:
            raise _under_way(collection) from error

    async def post_rollback(self, request: web.Request) -> web.Response:
        """Bring the target that served the collection before up to date, and go back to it."""
        wanted = decode(_rollback_decoder, await request.read())
        request[DEADLINE].start(LONG)
        collection = required_collection(wanted.collection)
        if wanted.tei_url is not None:
            await self._new_targets.ask(wanted.tei_url)
        target = await self._reindexes.last_retired(collection, wanted.tei_url)
        if target is None:
            raise ProblemError(404, "Not Found", f"nothing is kept that {collection!r} could go back to")
        try:
            return await self._start(collection, target, is_rollback=True, skip_failed=wanted.skip_failed)
        except asyncpg.UniqueViolationError as error:
            raise _under_way(collection) from error

    async def post_skip_failed(self, request: web.Request) -> web.Response:
        """Have a reindex switch although documents could not be transferred."""
        collection = required_collection(request.query.get("collection"))
        if not await self._reindexes.skip_failed(collection):
            raise _no_reindex(collection)
        return await self._answer(collection)

    async def delete_reindex(self, request: web.Request) -> web.Response:
        """Give a reindex up; the collection stays as it is."""
        collection = required_collection(request.query.get("collection"))
        request[DEADLINE].start(LONG)
        jobs = await self._reindexes.cancel(collection)
        if jobs is None:
            raise _no_reindex(collection)
        cancelled = 0
        for job_id in jobs:
            cancellation = await self._control.cancel(job_id)
            cancelled += cancellation.cancelled
            for job in cancellation.jobs:
                report_job(job, self._operations)
        log.info("Reindex cancelled", collection=collection, transfers=cancelled)
        return json_response(CancelledReindex(collection=collection, cancelled=cancelled))

    async def delete_retired(self, request: web.Request) -> web.Response:
        """Give up what is kept for a rollback; indexers delete its points within seconds."""
        collection = required_collection(request.query.get("collection"))
        dropped = await self._targets.drop_retired(collection)
        return json_response(DroppedTargets(collection=collection, dropped=list(dropped)))

    async def _start(self, collection: str, target: str, *, is_rollback: bool, skip_failed: bool) -> web.Response:
        if not await self._reindexes.start(target, is_rollback=is_rollback, skip_failed=skip_failed):
            raise _under_way(collection)
        log.info("Reindex started", collection=collection, target=target, is_rollback=is_rollback)
        return await self._answer(collection, 202)

    async def _answer(self, collection: str, status: int = 200) -> web.Response:
        (state,) = await self._reindexes.states(collection)
        return json_response(state, status)

    def _check_free(self, states: list[ReindexState]) -> None:
        """So that no target is made for nothing; what comes in between meets the unique index."""
        for state in states:
            if state.finished_at is None:
                raise _under_way(state.collection)


_reindex_decoder = msgspec.json.Decoder(ReindexRequest)
_rollback_decoder = msgspec.json.Decoder(RollbackRequest)


def merged(base: TargetSettings, wanted: TargetSettings) -> TargetSettings:
    """The settings of a target: those that are wanted, and for the others those of `base`."""
    names = TargetSettings.__struct_fields__
    given = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    return TargetSettings(**{name: getattr(base, name) for name in names} | given)


def _no_collection(collection: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"there is no collection {collection!r}")


def _no_reindex(collection: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"no reindex of {collection!r} is under way")


def _under_way(collection: str) -> ProblemError:
    return ProblemError(409, "Conflict", f"a reindex of {collection!r} is under way already")
