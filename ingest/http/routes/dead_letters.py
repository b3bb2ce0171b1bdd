"""The routes about dead letters: what was given up and why, trying it again, and dropping it."""

import msgspec
import structlog
from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.http.letter_requests import DropRequest, ListRequest, from_json, from_query
from ingest.http.queries import unprocessable
from ingest.jobs.dead_letters import DeadLetters
from ingest.jobs.replay import Replay, replay
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response

log = structlog.get_logger()

_TOO_MANY_DIGITS = 19  # for a bigint


class Replayed(Replay, frozen=True, kw_only=True):
    dry_run: bool


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    dropped: int  # letters
    dry_run: bool


class DeadLettersApi:
    """Handlers of /api/dead-letters."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._letters = DeadLetters(pool)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/dead-letters", self.get_letters)
        app.router.add_get("/api/dead-letters/{id}", self.get_letter)
        app.router.add_post("/api/dead-letters/replay", self.post_replay)
        app.router.add_delete("/api/dead-letters", self.delete_letters)

    async def get_letters(self, request: web.Request) -> web.Response:
        """A list of dead letters, newest first."""
        wanted = from_query(request.query, ListRequest)
        return json_response(
            await self._letters.list(
                wanted.filter, with_replayed=wanted.replayed, after=wanted.after, limit=wanted.limit
            )
        )

    async def get_letter(self, request: web.Request) -> web.Response:
        """One dead letter, with previews of its text or of the entry that could not be read."""
        text = request.match_info["id"]
        is_id = text.isascii() and text.isdecimal() and len(text) < _TOO_MANY_DIGITS
        letter = await self._letters.get(int(text)) if is_id else None
        if letter is None:
            raise ProblemError(404, "Not Found", f"there is no dead letter {text[:64]!r}")
        return json_response(letter)

    async def post_replay(self, request: web.Request) -> web.Response:
        """Queue the documents of the letters again, or only say how many that would be."""
        wanted = from_json(await request.read())
        request[DEADLINE].start(LONG)
        result = await replay(self._pool, wanted.filter, dry_run=wanted.dry_run)
        if not wanted.dry_run:
            log.info("Dead letters replayed", replayed=result.replayed)
        replayed = Replayed(**msgspec.structs.asdict(result), dry_run=wanted.dry_run)
        return json_response(replayed, 200 if wanted.dry_run else 202)

    async def delete_letters(self, request: web.Request) -> web.Response:
        """Drop letters for good, or only say how many that would be."""
        wanted = from_query(request.query, DropRequest)
        if wanted.filter.is_empty and not wanted.all:
            raise unprocessable("say which letters by ids or a filter, or all=true")
        request[DEADLINE].start(LONG)
        # An id says which letter is meant, whatever became of it.
        with_replayed = wanted.replayed or wanted.ids is not None
        if wanted.dry_run:
            dropped = await self._letters.count(wanted.filter, with_replayed=with_replayed)
        else:
            dropped = await self._letters.drop(wanted.filter, with_replayed=with_replayed)
            log.info("Dead letters dropped", dropped=dropped)
        return json_response(Dropped(dropped=dropped, dry_run=wanted.dry_run))
