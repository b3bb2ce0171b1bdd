"""How a document of a batch ended in a stage. A stage says it, only the runtime acts on it."""

import enum
from typing import Any

import msgspec


class ItemState(enum.StrEnum):
    """The state of one document of a job; all but the first two are final."""

    QUEUED = "queued"  # waits in Postgres for its due time and for room in the streams
    RELEASED = "released"  # in the streams, or in flight
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


_SUCCESSES = frozenset(
    {ItemState.INDEXED, ItemState.UNCHANGED, ItemState.SUPERSEDED, ItemState.DELETED}
)


class Emit(msgspec.Struct, frozen=True, tag=True):
    """The document goes on; `body` is its part of the next stream's entry."""

    body: Any
    chunks: int
    cached: int | None = None  # chunks whose vectors were known; None in stages that make none


class Done(msgspec.Struct, frozen=True, tag=True):
    """The document ended well."""

    state: ItemState
    chunks: int | None = None


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Try the document again after `delay` seconds.

    `attempts` is 1 if the document is at fault, else 0.
    """

    reason: str
    delay: float
    attempts: int
    dependency: str | None = None  # the one that failed, or that finds the document at fault
    may_be_at_fault: bool = False  # the document, if the dependency turns out to be healthy


class Dead(msgspec.Struct, frozen=True, tag=True):
    """The document cannot succeed; it becomes a dead letter."""

    code: str
    error: str
    attempts: int = 0
    dependency: str | None = None  # that finds the document at fault; None: the stage does


Outcome = Emit | Done | Retry | Dead
