"""What a stage is: a handler that says, for each document of a batch, how it went. Only the runtime acts on it."""

from typing import Any, Protocol

import msgspec

from shared.jobs.model import ItemState
from shared.messages import DocumentRef, Lane
from shared.streams import StageName


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
