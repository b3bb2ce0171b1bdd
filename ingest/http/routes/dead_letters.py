"""The routes of dead letters: list, show, replay, drop."""

from typing import Annotated

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from ingest.http.deadline import DEADLINE, LONG
from ingest.jobs.dead_letters import (
    DeadLetterDetails,
    DeadLetterList,
    DeadLetters,
    LetterFilter,
    LetterId,
)
from ingest.jobs.replay import Replay, replay
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response
from shared.service.parameters import unprocessable
from shared.service.routes import route

log = structlog.get_logger()


class ListQuery(LetterFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    replayed: bool = False  # list replayed dead letters, too
    after: LetterId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ReplayRequest(LetterFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dry_run: bool = False


class DropQuery(LetterFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    all: bool = False  # required to be true if there is no filter
    replayed: bool = False  # drop replayed dead letters, too
    dry_run: bool = False


class Replayed(Replay, frozen=True, kw_only=True):
    dry_run: bool


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    dropped: int  # dead letters
    dry_run: bool


class DeadLettersApi:
    """Handlers of /api/dead-letters."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._dead_letters = DeadLetters(pool)

    @route("GET /api/dead-letters", "List dead letters", {200: DeadLetterList})
    async def get_letters(self, _request: web.Request, query: ListQuery) -> web.Response:
        """A list of dead letters, newest first."""
        dead_letters = await self._dead_letters.list(
            query, with_replayed=query.replayed, after=query.after, limit=query.limit
        )  # fmt: skip
        return json_response(dead_letters)

    @route("GET /api/dead-letters/{id}", "One dead letter", {200: DeadLetterDetails})
    async def get_letter(self, _request: web.Request, id: LetterId) -> web.Response:  # noqa: A002
        """One dead letter, with previews of its text or of the unreadable entry."""
        dead_letter = await self._dead_letters.get(id)
        if dead_letter is None:
            raise ProblemError(404, "Not Found", f"there is no dead letter {id}")
        return json_response(dead_letter)

    @route("POST /api/dead-letters/replay", "Replay dead letters", {202: Replayed, 200: Replayed})
    async def post_replay(self, request: web.Request, body: ReplayRequest) -> web.Response:
        """Queue the documents of the dead letters again; a dry run only counts them."""
        request[DEADLINE].start(LONG)
        result = await replay(self._pool, body, dry_run=body.dry_run)
        if not body.dry_run:
            log.info("Dead letters replayed", replayed=result.replayed)
        replayed = Replayed(**msgspec.structs.asdict(result), dry_run=body.dry_run)
        return json_response(replayed, 200 if body.dry_run else 202)

    @route("DELETE /api/dead-letters", "Drop dead letters", {200: Dropped})
    async def delete_letters(self, request: web.Request, query: DropQuery) -> web.Response:
        """Delete dead letters for good; a dry run only counts them."""
        if query.is_empty and not query.all:
            raise unprocessable(
                "no dead letters selected: expected `ids`, another filter, or `all=true`"
            )
        request[DEADLINE].start(LONG)
        # An id selects its dead letter, replayed or not.
        with_replayed = query.replayed or query.ids is not None
        if query.dry_run:
            dropped = await self._dead_letters.count(query, with_replayed=with_replayed)
        else:
            dropped = await self._dead_letters.drop(query, with_replayed=with_replayed)
            log.info("Dead letters dropped", dropped=dropped)
        return json_response(Dropped(dropped=dropped, dry_run=query.dry_run))
