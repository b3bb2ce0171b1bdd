"""What a stage is: work on one document, with an optional step before and after.

The runtime does everything else.

The runtime reads, looks up the target, decodes bodies, limits time, isolates documents from each
other, maps errors to outcomes, records them and hands over. A stage has no Redis, no retries and no
signals.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from shared.jobs.targets import Target
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef
from shared.pipeline.outcomes import Outcome
from shared.pipeline.stages import StageName
from shared.runtime.time_limit import TimeLimit

Prepared = TypeVar("Prepared")
Unfinished = TypeVar("Unfinished")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a batch message."""

    ref: DocumentRef
    body: Any = None  # of the type in the table of stages; None where the stream carries none
    attempts: int = 0  # errors so far that were the document's fault, in all stages
    limit: TimeLimit = msgspec.field(default_factory=lambda: TimeLimit(None))  # may be held


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The current documents of one entry, all of one lane and one target."""

    entry_id: str
    target: Target
    lane: Lane
    documents: Sequence[Document]


class Stage(abc.ABC, Generic[Prepared, Unfinished]):
    """One stage.

    Any step may raise: the error becomes the outcome of the documents that it was about.

    DependencyError costs a document nothing, RejectedError is a dead letter, anything else counts
    as an attempt.
    """

    name: ClassVar[StageName]

    async def prepare(self, batch: Batch) -> Prepared:
        """Load what the documents of a batch share; by default this is the batch itself."""
        return cast("Prepared", batch)

    @abc.abstractmethod
    async def handle_document(self, document: Document, prepared: Prepared) -> Outcome | Unfinished:
        """Work on one document, concurrently with the others of its batch.

        Returns its outcome, or what `finish` needs to find it.
        """

    async def is_unavailable(self, service: str, target: Target) -> bool | None:
        """Ask the servers of a dependency that a target has for itself, after a document failed.

        None, the default: its servers are those of all targets, and their breaker is asked.
        """
        return None

    async def finish(
        self, prepared: Prepared, unfinished: Sequence[Unfinished]
    ) -> Sequence[Outcome]:
        """Return one outcome for each unfinished result of `handle_document`, in their order."""
        raise NotImplementedError(
            f"{type(self).__name__} returns results that are no outcomes, and has no `finish`"
        )
