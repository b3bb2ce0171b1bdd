"""The index stage: writes points past the version fence. Deletes skip the other stages."""

import time
from collections.abc import Mapping, Sequence

from indexer.candidates import Candidates, deletion_of, outcome_of
from indexer.fence import Candidate, Fence
from indexer.target_collections import TargetCollections
from shared.jobs.operations import Operation, OperationLog
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action
from shared.pipeline.outcomes import Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Batch, Document, Stage


class IndexStage(Stage[Batch, Candidate]):
    """Makes documents searchable, and deletes them."""

    name = StageName.INDEXER

    def __init__(
        self, collections: TargetCollections, fences: Mapping[Lane, Fence], operations: OperationLog
    ) -> None:
        self._collections = collections
        self._fences = fences
        self._operations = operations
        self._candidates = Candidates()

    async def handle_document(self, document: Document, prepared: Batch) -> Candidate:
        if document.ref.action is Action.DELETE:
            return deletion_of(document.ref)
        with document.limit.held():  # the collection is no work on this document
            encoder = await self._collections.encoder(prepared.target, document.body.dimension)
        return await self._candidates.make(document, prepared, encoder)

    async def finish(self, prepared: Batch, unfinished: Sequence[Candidate]) -> Sequence[Outcome]:
        """Bring all candidates of the batch past the fence together."""
        started = time.monotonic()
        with self._collections.used(prepared.target):
            results = await self._fences[prepared.lane].apply(prepared.target.target, unfinished)
        self._operations.add(
            Operation(
                operation_type="qdrant", operation_name="index",
                duration_ms=(time.monotonic() - started) * 1000,
                metadata={
                    "documents": len(unfinished),
                    "points": sum(len(candidate.points) for candidate in unfinished),
                },
            )
        )  # fmt: skip
        return [outcome_of(*pair) for pair in zip(unfinished, results, strict=True)]
