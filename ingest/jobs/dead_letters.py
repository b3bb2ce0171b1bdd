"""Dead letters in Postgres: find, read, drop. Replaying is in `replay.py`."""

import datetime as dt
import enum
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import Meta

from shared.jobs.payloads import load_payloads
from shared.service.parameters import JobId, Text
from shared.service.settings import Seconds

_COLUMNS = """
l.id, l.job_id::text, l.position, l.url, l.stage, l.code, l.error, l.attempts, l.deliveries,
l.version, l.created_at, l.replayed_at
"""

_GET = f"""
SELECT {_COLUMNS}, coalesce(length(header), 0) AS header_bytes,
       coalesce(length(body), 0) AS body_bytes,
       substr(header, 1, $2) AS header
FROM webhook.dead_letters l WHERE id = $1
"""

_PREVIEW_CHARACTERS = 500
_BATCH = 1000  # dead letters of one DELETE, so that no statement holds locks for long


class LetterStage(enum.StrEnum):
    """The origin of a dead letter: a stage, or the delivery of a callback."""

    CHUNKER = "chunker"
    EMBEDDER = "embedder"
    INDEXER = "indexer"
    CALLBACK = "callback"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A document, an unreadable entry or a callback that was given up.

    An unreadable entry has no job, position, url and version. A callback has no position and
    version, and `url` is that of its receiver.
    """

    id: int
    job_id: str | None
    position: int | None
    url: str | None
    stage: LetterStage
    code: str
    error: str
    attempts: int
    deliveries: int
    version: int | None
    created_at: dt.datetime
    replayed_at: dt.datetime | None


class DeadLetterDetails(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with its content; `header` and `text` are the first 500 bytes or characters."""

    header_bytes: int  # of an unreadable entry
    body_bytes: int
    header: str | None
    text_characters: int | None  # of a document whose text is stored
    text: str | None


LetterId = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A selection of dead letters, in a query or as JSON; all conditions that are set must hold."""

    stage: LetterStage | None = None
    code: Text | None = None
    job_id: JobId | None = None
    url: Text | None = None  # as it was sent
    since: Seconds | None = None
    ids: tuple[LetterId, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it selects every dead letter."""
        return all(getattr(self, name) is None for name in LetterFilter.__struct_fields__)


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True):
    dead_letters: list[DeadLetter]
    next: int | None  # `after` of the next page


class DeadLetters:
    """The dead letters in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def list(
        self,
        wanted: LetterFilter,
        *,
        with_replayed: bool = False,
        after: int | None = None,
        limit: int = 100,
    ) -> DeadLetterList:
        """Dead letters, newest first; replayed ones only with `with_replayed`."""
        where, arguments = conditions(wanted, with_replayed=with_replayed)
        if after is not None:
            arguments.append(after)
            where += f" AND l.id < ${len(arguments)}"
        rows = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM webhook.dead_letters l WHERE {where} "
            f"ORDER BY l.id DESC LIMIT {int(limit)}",
            *arguments,
        )
        dead_letters = [msgspec.convert(dict(row), DeadLetter) for row in rows]
        return DeadLetterList(
            dead_letters=dead_letters,
            next=dead_letters[-1].id if len(dead_letters) == limit else None,
        )

    async def get(self, letter_id: int) -> DeadLetterDetails | None:
        """One dead letter with previews of its content."""
        row = await self._pool.fetchrow(_GET, letter_id, _PREVIEW_CHARACTERS)
        if row is None:
            return None
        fields: dict[str, Any] = dict(row)
        header = fields.pop("header")
        texts = (
            await load_payloads(self._pool, [row["version"]]) if row["version"] is not None else {}
        )
        text = texts[row["version"]].markdown if texts else None
        return msgspec.convert(
            {
                **fields,
                "header": header.decode(errors="replace") if header is not None else None,
                "text_characters": len(text) if text is not None else None,
                "text": text[:_PREVIEW_CHARACTERS] if text is not None else None,
            },
            DeadLetterDetails,
        )

    async def count(self, wanted: LetterFilter, *, with_replayed: bool = False) -> int:
        """The number of dead letters."""
        where, arguments = conditions(wanted, with_replayed=with_replayed)
        return int(
            await self._pool.fetchval(
                f"SELECT count(*) FROM webhook.dead_letters l WHERE {where}", *arguments
            )
        )

    async def drop(self, wanted: LetterFilter, *, with_replayed: bool = False) -> int:
        """Delete the dead letters for good; returns how many.

        Their items stay failed and cannot be retried.

        A dead letter that is being replayed is skipped.
        """
        where, arguments = conditions(wanted, with_replayed=with_replayed)
        statement = (
            "DELETE FROM webhook.dead_letters WHERE id IN "
            f"(SELECT l.id FROM webhook.dead_letters l WHERE {where} ORDER BY l.id LIMIT {_BATCH} "
            "FOR UPDATE SKIP LOCKED)"
        )
        dropped, last = 0, _BATCH
        while last == _BATCH:
            last = int((await self._pool.execute(statement, *arguments)).split()[-1])
            dropped += last
        return dropped


def conditions(wanted: LetterFilter, *, with_replayed: bool = False) -> tuple[str, list[Any]]:
    """The SQL condition on `dead_letters l` and its arguments, from $1 on.

    Conditions that are not set are left out: with `$1 IS NULL OR ...` a generic plan cannot use its
    indexes.
    """
    possible = (
        ("l.stage = ${}", wanted.stage),
        ("l.code = ${}", wanted.code),
        ("l.job_id = ${}", wanted.job_id),
        ("l.url = ${}", wanted.url),
        ("l.created_at > now() - make_interval(secs => ${})", wanted.since),
        ("l.id = ANY (${}::bigint[])", wanted.ids),
    )
    chosen = [(text, value) for text, value in possible if value is not None]
    texts = [text.format(number) for number, (text, _) in enumerate(chosen, 1)]
    if not with_replayed:
        texts.append("l.replayed_at IS NULL")
    return " AND ".join(texts) or "true", [value for _, value in chosen]
