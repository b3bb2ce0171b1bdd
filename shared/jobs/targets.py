"""Targets: physical collections, each with the model, chunking and generation of its points."""

import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

import asyncpg
import msgspec

from shared.service.errors import ConfigurationError
from shared.service.settings import ChunkerSettings

_ENSURE = """
INSERT INTO webhook.targets (target, collection) VALUES ($1 || '_1', $1) ON CONFLICT DO NOTHING
"""

_SETTINGS = """
tei_url, model, dimension, max_chunk_tokens, chunk_overlap_tokens, chunk_prefix_tokens,
max_chunk_characters, tokenizer
"""

_COLUMNS = f"target, collection, live, generation::text, {_SETTINGS}"

_GET = f"""
SELECT {_COLUMNS}, live OR EXISTS (
         SELECT FROM webhook.reindexes r WHERE r.target = t.target AND r.finished_at IS NULL)
         AS is_wanted
FROM webhook.targets t WHERE target = $1
"""

_LIVE = f"SELECT {_COLUMNS} FROM webhook.targets WHERE collection = $1 AND live"

_SETTLED = f"""
SELECT {_COLUMNS} FROM webhook.targets WHERE live AND tei_url IS NULL AND dimension IS NOT NULL
"""

_ALL_LIVE = f"SELECT {_COLUMNS} FROM webhook.targets WHERE live ORDER BY collection"

_IN_USE = f"""
SELECT {_COLUMNS} FROM webhook.targets t
WHERE live
   OR EXISTS (SELECT FROM webhook.reindexes r WHERE r.target = t.target AND r.finished_at IS NULL)
"""

# Without a target that a rollback is filling.
_RETIRED = f"""
SELECT {_COLUMNS} FROM webhook.targets t
WHERE retired_at IS NOT NULL AND dropped_at IS NULL
  AND NOT EXISTS (
    SELECT FROM webhook.reindexes r WHERE r.target = t.target AND r.finished_at IS NULL)
"""

_DROPPED = f"SELECT {_COLUMNS} FROM webhook.targets WHERE dropped_at IS NOT NULL"

# A number is never reused: a late writer of an earlier target cannot write into a later one.
_CREATE = f"""
INSERT INTO webhook.targets (target, collection, live, {_SETTINGS})
SELECT $1 || '_' || coalesce(max(substring(target FROM '[0-9]+$')::bigint), 0) + 1, $1, $2,
       $3, $4, $5, $6, $7, $8, $9, $10
FROM webhook.targets WHERE collection = $1
RETURNING {_COLUMNS}
"""

# The first embedder decides; all others read the decision.
_SETTLE = f"""
UPDATE webhook.targets SET model = coalesce(model, $2), dimension = coalesce(dimension, $3)
WHERE target = $1
RETURNING {_COLUMNS}
"""

_DROP_RETIRED = """
UPDATE webhook.targets SET dropped_at = now()
WHERE collection = $1 AND retired_at IS NOT NULL AND dropped_at IS NULL
  AND NOT EXISTS (
    SELECT FROM webhook.reindexes r WHERE r.target = targets.target AND r.finished_at IS NULL)
RETURNING target
"""

_ROWS = 5000  # of one statement: far below its time limit
# By their place in the file: a join would read the whole target for each statement. $2 is the last
# one of the slice before: without it a slice would pass all that are deleted already.
_FORGET = f"""
DELETE FROM webhook.documents WHERE target = $1 AND ctid = ANY (ARRAY(
  SELECT ctid FROM webhook.documents d WHERE target = $1 AND document_id > $2
  ORDER BY d.document_id LIMIT {_ROWS}))
RETURNING document_id::text
"""

_CLOSE_DEAD_LETTERS = f"""
DELETE FROM webhook.dead_letters WHERE id IN (
  SELECT l.id FROM webhook.targets t
  JOIN webhook.job_items i ON i.target = t.target AND i.state = 'failed'
  JOIN webhook.dead_letters l ON l.job_id = i.job_id AND l.position = i.position
  WHERE t.target = $1 AND t.dropped_at IS NOT NULL AND l.replayed_at IS NULL
  LIMIT {_ROWS} FOR UPDATE OF l SKIP LOCKED)
"""

_CLAIM_SCRUB = """
UPDATE webhook.targets SET scrubbed_at = now()
WHERE target = (
  SELECT target FROM webhook.targets
  WHERE dropped_at IS NULL
    AND (scrubbed_at IS NULL OR scrubbed_at < now() - make_interval(secs => $1))
  ORDER BY scrubbed_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING target
"""

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=32_768)]
_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"\A[^\x00]*\Z")]
TeiUrls = Annotated[
    str, msgspec.Meta(max_length=2000, pattern=r"\Ahttps?://[!-+\--~]+(,https?://[!-+\--~]+)*\Z")
]


class TargetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that a target may have; None means the setting of the services."""

    tei_url: TeiUrls | None = None  # one or several servers, separated by commas
    max_chunk_tokens: Annotated[int, msgspec.Meta(ge=64, le=32_768)] | None = None
    chunk_overlap_tokens: _Tokens | None = None
    chunk_prefix_tokens: _Tokens | None = None
    max_chunk_characters: Annotated[int, msgspec.Meta(ge=64, le=1_000_000)] | None = None
    tokenizer: _Path | None = None  # path of a tokenizer.json below WEBHOOK_TOKENIZER_DIRECTORY


class Target(TargetSettings, frozen=True, kw_only=True):
    """One physical collection. Model and dimension are None until its first embedding."""

    target: str  # also its name in Qdrant
    collection: str
    generation: str
    live: bool = True  # it serves its collection
    is_wanted: bool = True  # live, or a reindex is filling it; only `get` says otherwise
    model: str | None = None
    dimension: int | None = None

    def chunking(self, default: ChunkerSettings) -> ChunkerSettings:
        """The chunking of its documents: its own settings, else those of the chunker.

        Raises ConfigurationError for a tokenizer that is not allowed.
        """
        names = (
            "max_chunk_tokens",
            "chunk_overlap_tokens",
            "chunk_prefix_tokens",
            "max_chunk_characters",
            "tokenizer",
        )
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.tokenizer is not None:
            own["tokenizer"] = tokenizer_path(self.tokenizer, default)
        return msgspec.structs.replace(default, **own)


def tokenizer_path(tokenizer: str, settings: ChunkerSettings) -> str:
    """The path of a collection's tokenizer, which may be relative to the directory of tokenizers.

    Raises ConfigurationError for one outside. Symbolic links are the operator's own, and followed.
    """
    if tokenizer == settings.tokenizer:
        return tokenizer
    if settings.tokenizer_directory is None:
        raise ConfigurationError(
            f"the tokenizer {tokenizer} of a collection is not allowed: set "
            "WEBHOOK_TOKENIZER_DIRECTORY of every service to the directory of its tokenizers"
        )
    directory = PurePosixPath(settings.tokenizer_directory)
    path = directory / tokenizer
    if ".." in path.parts or not path.is_relative_to(directory):
        raise ConfigurationError(
            f"the tokenizer {tokenizer} of a collection is not allowed: move it below "
            f"WEBHOOK_TOKENIZER_DIRECTORY, which is {directory}"
        )
    return str(path)


class Targets:
    """The targets in Postgres. Raises DependencyError when Postgres is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def ensure(self, collection: str) -> None:
        """Create the first target of a collection if it has none."""
        await self._pool.execute(_ENSURE, collection)

    async def create(
        self,
        collection: str,
        settings: TargetSettings,
        *,
        live: bool,
        model: str | None,
        dimension: int | None,
    ) -> Target:
        """Create another target of a collection.

        Raises asyncpg.UniqueViolationError if it is to be live and another target is.
        """
        (made,) = await self._pool.fetch(
            _CREATE, collection, live, *_values(settings, model, dimension)
        )
        return _target(made)

    async def get(self, target: str) -> Target:
        """The target of this name. Raises LookupError if there is none."""
        row = await self._pool.fetchrow(_GET, target)
        if row is None:
            raise LookupError(f"there is no target {target!r}")
        return _target(row)

    async def live(self, collection: str) -> Target | None:
        """The target that serves a collection; None before its first document."""
        row = await self._pool.fetchrow(_LIVE, collection)
        return _target(row) if row is not None else None

    async def settled(self) -> list[Target]:
        """The live targets that have vectors, embedded by WEBHOOK_TEI_URL."""
        return await self._all(_SETTLED)

    async def all_live(self) -> list[Target]:
        """The targets that serve a collection."""
        return await self._all(_ALL_LIVE)

    async def in_use(self) -> list[Target]:
        """The targets that serve a collection, and those that a reindex is filling."""
        return await self._all(_IN_USE)

    async def retired(self) -> list[Target]:
        """The targets that served a collection before and are kept for a rollback."""
        return await self._all(_RETIRED)

    async def dropped(self) -> list[Target]:
        """The targets whose points can be deleted."""
        return await self._all(_DROPPED)

    async def drop_retired(self, collection: str) -> Sequence[str]:
        """Drop the targets that a collection keeps for a rollback; returns them."""
        return [row["target"] for row in await self._pool.fetch(_DROP_RETIRED, collection)]

    async def forget_documents(self, target: str) -> int:
        """Delete the documents of a target, whose points are gone, from the registry; returns their
        number.
        """
        forgotten, after = 0, str(uuid.UUID(int=0))
        while rows := await self._pool.fetch(_FORGET, target, after):
            forgotten += len(rows)
            after = max(row["document_id"] for row in rows)
        return forgotten

    async def close_dead_letters(self, target: str) -> int:
        """Delete the dead letters of transfers to a dropped target; returns their number.

        A target that is not dropped keeps its dead letters.
        """
        closed, last = 0, _ROWS
        while last == _ROWS:
            last = int((await self._pool.execute(_CLOSE_DEAD_LETTERS, target)).split()[-1])
            closed += last
        return closed

    async def settle(self, target: str, model: str, dimension: int) -> Target:
        """Record model and dimension unless they are known; returns the target as it is now."""
        row = await self._pool.fetchrow(_SETTLE, target, model, dimension)
        if row is None:
            raise LookupError(f"there is no target {target!r}")
        return _target(row)

    async def claim_scrub(self, interval: float) -> str | None:
        """Claim a target whose last scrub started at least `interval` seconds ago; None if there is
        none.
        """
        target: str | None = await self._pool.fetchval(_CLAIM_SCRUB, interval)
        return target

    async def _all(self, statement: str) -> list[Target]:
        return [_target(row) for row in await self._pool.fetch(statement)]


def _values(
    settings: TargetSettings, model: str | None, dimension: int | None
) -> tuple[object, ...]:
    """The values in the order of _SETTINGS."""
    return (
        settings.tei_url,
        model,
        dimension,
        settings.max_chunk_tokens,
        settings.chunk_overlap_tokens,
        settings.chunk_prefix_tokens,
        settings.max_chunk_characters,
        settings.tokenizer,
    )


def _target(row: asyncpg.Record) -> Target:
    return msgspec.convert(dict(row), Target)
