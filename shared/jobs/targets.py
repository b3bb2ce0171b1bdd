"""Targets: a physical collection with the model, dimension and generation that its points were made with."""

import asyncpg
import msgspec

_ENSURE = """
INSERT INTO webhook.targets (target, collection) VALUES ($1 || '_1', $1) ON CONFLICT DO NOTHING
"""

_COLUMNS = "target, collection, tei_url, model, dimension, generation::text"

_GET = f"SELECT {_COLUMNS} FROM webhook.targets WHERE target = $1"

_LIVE = f"SELECT {_COLUMNS} FROM webhook.targets WHERE collection = $1 AND live"

_SETTLED = f"SELECT {_COLUMNS} FROM webhook.targets WHERE live AND tei_url IS NULL AND dimension IS NOT NULL"

_ALL_LIVE = f"SELECT {_COLUMNS} FROM webhook.targets WHERE live"

# The first embedder to come decides; all others learn what was decided.
_SETTLE = f"""
UPDATE webhook.targets SET model = coalesce(model, $2), dimension = coalesce(dimension, $3) WHERE target = $1
RETURNING {_COLUMNS}
"""

_CLAIM_SCRUB = """
UPDATE webhook.targets SET scrubbed_at = now()
WHERE target = (
  SELECT target FROM webhook.targets
  WHERE scrubbed_at IS NULL OR scrubbed_at < now() - make_interval(secs => $1)
  ORDER BY scrubbed_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING target
"""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One physical collection. Model and dimension are None until its first embedding."""

    target: str  # also its name in Qdrant
    collection: str
    generation: str
    tei_url: str | None = None
    model: str | None = None
    dimension: int | None = None


class Targets:
    """The targets in Postgres. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def ensure(self, collection: str) -> None:
        """Make the first target of a collection if it has none."""
        await self._pool.execute(_ENSURE, collection)

    async def get(self, target: str) -> Target:
        """Raises LookupError for a target that does not exist."""
        row = await self._pool.fetchrow(_GET, target)
        if row is None:
            raise LookupError(f"there is no target {target!r}")
        return _target(row)

    async def live(self, collection: str) -> Target | None:
        """The target that serves a collection, None before its first document."""
        row = await self._pool.fetchrow(_LIVE, collection)
        return _target(row) if row is not None else None

    async def settled(self) -> list[Target]:
        """The live targets that have vectors already, made by WEBHOOK_TEI_URL."""
        return [_target(row) for row in await self._pool.fetch(_SETTLED)]

    async def all_live(self) -> list[Target]:
        """The targets that serve a collection."""
        return [_target(row) for row in await self._pool.fetch(_ALL_LIVE)]

    async def settle(self, target: str, model: str, dimension: int) -> Target:
        """Note model and dimension if none are noted yet; returns what holds now."""
        row = await self._pool.fetchrow(_SETTLE, target, model, dimension)
        if row is None:
            raise LookupError(f"there is no target {target!r}")
        return _target(row)

    async def claim_scrub(self, interval: float) -> str | None:
        """A target that nobody began to scrub for `interval` seconds: now the caller has."""
        target: str | None = await self._pool.fetchval(_CLAIM_SCRUB, interval)
        return target


def _target(row: asyncpg.Record) -> Target:
    return msgspec.convert(dict(row), Target)
