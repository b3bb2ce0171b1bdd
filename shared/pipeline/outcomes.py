"""What a stage is: a handler that says, for each document of a batch, how it went. Only the runtime acts on it."""

import enum
from typing import Any, Protocol

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef
from shared.pipeline.stages import StageName


class ItemState(enum.StrEnum):
    """The state of one document of a job; all but the first two are final."""

    QUEUED = "queued"  # waits in Postgres for its due time and for room in the streams
    RELEASED = "released"  # in the streams or in work
    INDEXED = "indexed"
    UNCHANGED = "unchanged"  # the same content is already searchable
    SUPERSEDED = "superseded"  # a later version of the document won
    DELETED = "deleted"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_success(self) -> bool:
        return self in _SUCCESSES

    @property
    def is_final(self) -> bool:
        return self not in {ItemState.QUEUED, ItemState.RELEASED}


_SUCCESSES = frozenset({ItemState.INDEXED, ItemState.UNCHANGED, ItemState.SUPERSEDED, ItemState.DELETED})


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a batch: who it is, and its part of the entry's body (None where the stream carries none)."""

    ref: DocumentRef
    body: Any = None
    attempts: int = 0  # document-fault errors so far, in all stages


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The current documents of one entry, all of one lane and target."""

    entry_id: str
    target: str
    lane: Lane
    works: tuple[Work, ...]


class Emit(msgspec.Struct, frozen=True, tag=True):
    """The document goes on; `body` is its part of the next stream's entry."""

    body: Any
    chunks: int
    cached: int | None = None  # of the chunks: vectors that were known already; None in stages that make none


class Done(msgspec.Struct, frozen=True, tag=True):
    """The document ended well."""

    state: ItemState
    chunks: int | None = None


class Retry(msgspec.Struct, frozen=True, tag=True):
    """The document is to be tried again after `delay` seconds; `attempts` is 1 if it was its own fault, else 0."""

    reason: str
    delay: float
    attempts: int
    dependency: str | None = None  # who is to blame, if it is true that it is away
    is_suspicious: bool = False  # the document itself may be what the dependency stumbles over


class Dead(msgspec.Struct, frozen=True, tag=True):
    """The document cannot succeed; it becomes a dead letter."""

    code: str
    error: str
    attempts: int = 0
    dependency: str | None = None  # whose word this is, if it is not our own


Outcome = Emit | Done | Retry | Dead


class Stage(Protocol):
    """One stage of the pipeline."""

    @property
    def name(self) -> StageName: ...

    async def handle(self, batch: Batch) -> list[Outcome]:
        """One outcome per document, in the batch's order. Anything that it raises is retried as a whole."""
        ...
