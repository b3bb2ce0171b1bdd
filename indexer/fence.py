"""The version fence: whatever is killed, paused, repeated or late, the last accepted version of a
document wins.

The registry decides in one statement which version is visible; points are written before it and
cleaned up after it. Each step is safe to repeat, and a copy that was overtaken takes away only
points of its own version.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from qdrant_client.models import PointStruct

from indexer.qdrant.store import StoredDocument, StoredVersion
from shared.jobs.registry import Decided, Registration
from shared.pipeline.failpoints import failpoint
from shared.pipeline.outcomes import ItemState
from shared.service.errors import RejectedError


class Decisions(Protocol):
    """The part of the registry that the fence needs."""

    async def decided(self, target: str, document_ids: Sequence[str]) -> dict[str, Decided]: ...
    async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]: ...


class Points(Protocol):
    """The part of the point store that the fence needs."""

    async def upsert(
        self, collection: str, points: Sequence[PointStruct]
    ) -> dict[str, RejectedError]: ...
    async def delete_older(self, collection: str, documents: Sequence[StoredDocument]) -> None: ...
    async def delete_version(self, collection: str, versions: Sequence[StoredVersion]) -> None: ...
    async def delete_up_to(self, collection: str, versions: Sequence[StoredVersion]) -> None: ...


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a document that wants to become visible, or a delete (no points, not live)."""

    registration: Registration
    points: Sequence[PointStruct] = ()

    @property
    def key(self) -> tuple[str, int]:
        return self.registration.document_id, self.registration.version


Result = ItemState | RejectedError


class Fence:
    """Brings candidates of one target past the registry. Raises DependencyError, asyncpg errors."""

    def __init__(self, registry: Decisions, store: Points) -> None:
        self._registry = registry
        self._store = store

    async def apply(self, target: str, candidates: Sequence[Candidate]) -> list[Result]:
        """How each candidate ended, in order: indexed, deleted, superseded or refused."""
        results: dict[tuple[str, int], Result] = {}
        waiting = list(candidates)
        while waiting:
            latest = _latest(waiting)
            ended = await self._index(target, [c for c in latest if c.registration.is_live])
            ended |= await self._delete(target, [c for c in latest if not c.registration.is_live])
            results |= ended
            # Where Qdrant refuses the latest version, the one before it is the last that can be
            # found.
            refused = {
                document_id for (document_id, _), r in ended.items() if isinstance(r, RejectedError)
            }
            waiting = [c for c in waiting if c.key[0] in refused and c not in latest]
        return [results.get(candidate.key, ItemState.SUPERSEDED) for candidate in candidates]

    async def _index(
        self, target: str, candidates: list[Candidate]
    ) -> dict[tuple[str, int], Result]:
        if not candidates:
            return {}
        entering = await self._keep_current(target, candidates)
        failpoint("indexer", "entered")
        rejected = await self._store.upsert(target, [point for c in entering for point in c.points])
        failpoint("indexer", "upserted")
        accepted = [c for c in entering if c.registration.document_id not in rejected]
        won = await self._registry.commit(target, [c.registration for c in accepted])
        failpoint("indexer", "committed")
        winners = [c for c in accepted if c.registration.document_id in won]
        await self._withdraw(target, [c for c in entering if c not in winners])
        await self._store.delete_older(target, [_stored(c) for c in winners])
        failpoint("indexer", "trimmed")
        # A later version may have been decided since, and its clean-up been done before our points
        # were written.
        indexed = await self._keep_current(target, winners)
        results: dict[tuple[str, int], Result] = {c.key: ItemState.INDEXED for c in indexed}
        results |= {c.key: rejected[c.key[0]] for c in entering if c.key[0] in rejected}
        return results

    async def _delete(
        self, target: str, candidates: list[Candidate]
    ) -> dict[tuple[str, int], Result]:
        if not candidates:
            return {}
        won = await self._registry.commit(target, [c.registration for c in candidates])
        failpoint("indexer", "deleted")
        winners = [c for c in candidates if c.registration.document_id in won]
        await self._store.delete_up_to(target, [_version(c) for c in winners])
        return {c.key: ItemState.DELETED for c in winners}

    async def _keep_current(self, target: str, candidates: list[Candidate]) -> list[Candidate]:
        """Those that no later version has overtaken; the points of the others are withdrawn."""
        decided = await self._registry.decided(
            target, [c.registration.document_id for c in candidates]
        )
        overtaken = [
            c
            for c in candidates
            if (d := decided.get(c.key[0])) and d.is_past(c.registration.version)
        ]
        await self._remove(target, overtaken, decided)
        return [c for c in candidates if c not in overtaken]

    async def _withdraw(self, target: str, candidates: list[Candidate]) -> None:
        if candidates:
            decided = await self._registry.decided(
                target, [c.registration.document_id for c in candidates]
            )
            await self._remove(target, candidates, decided)

    async def _remove(
        self, target: str, candidates: list[Candidate], decided: dict[str, Decided]
    ) -> None:
        """Delete the candidates' own points, unless they are what is visible: another copy brought
        them there.

        The decision is stable: a version that was passed over never becomes live again.
        """
        hidden = [
            c
            for c in candidates
            if (d := decided.get(c.key[0])) is None or d.live_version != c.key[1]
        ]
        if hidden:
            await self._store.delete_version(target, [_version(c) for c in hidden])


def _latest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The highest version of each document; the others are superseded before they begin."""
    by_document = {c.key[0]: c for c in sorted(candidates, key=lambda c: c.registration.version)}
    return list(by_document.values())


def _stored(candidate: Candidate) -> StoredDocument:
    return StoredDocument(*candidate.key, len(candidate.points))


def _version(candidate: Candidate) -> StoredVersion:
    return StoredVersion(*candidate.key)
