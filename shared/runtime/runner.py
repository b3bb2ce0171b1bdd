"""Runs a stage on one batch message: target, bodies, time limits, isolation, errors to outcomes."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from shared.jobs.targets import Target
from shared.pipeline.messages import Action, Header, decode_part
from shared.pipeline.outcomes import Done, ItemState, Outcome
from shared.runtime.batch import BatchWorker
from shared.runtime.faults.failures import Failures
from shared.runtime.stage import Batch, Document, Stage
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DrainingError
from shared.service.health import Wait


class TargetLookup(Protocol):
    """The part of `Targets` that the runtime needs."""

    async def get(self, target: str) -> Target: ...


class StageRunner:
    """Runs one stage.

    Every error becomes an outcome; only cancellation and DrainingError leave `run`. A batch has no
    time limit: it would count the time in which documents wait, and charge those that have ended.
    """

    def __init__(
        self,
        stage: Stage[Any, Any],
        targets: TargetLookup,
        failures: Failures,
        document_timeout: float,
    ) -> None:
        """`document_timeout` of `handle_document`, in seconds."""
        self._stage = stage
        self._targets = targets
        self._failures = failures
        self._document_timeout = document_timeout

    @property
    def waits(self) -> list[Wait]:
        """One for each target that rests."""
        return self._failures.waits

    async def run(
        self, entry_id: str, header: Header, documents: Sequence[Document]
    ) -> list[Outcome]:
        """Return one outcome per document, in order."""
        if not documents:
            return []
        target: Target | None = None
        try:
            target = await self._targets.get(header.target)
            if (rest := self._failures.rest_of(target)) is not None:
                return [rest for _ in documents]
            outcomes = await self._run(
                Batch(entry_id=entry_id, target=target, lane=header.lane, documents=documents)
            )
        except DrainingError:
            raise
        except Exception as error:
            outcomes = self._failed(documents, error)
        return await self._failures.attribute(documents, outcomes, target)

    async def _run(self, batch: Batch) -> list[Outcome]:
        """Decode the bodies, then run the steps on those documents that could be read.

        Documents for a target that nothing wants any more, as after a cancelled reindex, end as
        cancelled.
        """
        if not batch.target.is_wanted:
            return [Done(ItemState.CANCELLED) for _ in batch.documents]
        read = [self._decoded(document) for document in batch.documents]
        readable = [result for result in read if isinstance(result, Document)]
        outcomes = (
            await self._steps(msgspec.structs.replace(batch, documents=readable))
            if readable
            else []
        )
        return _completed(read, outcomes)

    async def _steps(self, batch: Batch) -> list[Outcome]:
        prepared = await self._stage.prepare(batch)
        worker: BatchWorker[Document, Any] = BatchWorker(
            partial(self._handle_document, prepared),
            limit=len(batch.documents),
            on_error=self._failures.outcome_of,
        )
        results = await worker.process_batch(batch.documents)
        unfinished = {
            index: result for index, result in enumerate(results) if not isinstance(result, Outcome)
        }
        if not unfinished:
            return results
        try:
            outcomes = await self._stage.finish(prepared, list(unfinished.values()))
        except DrainingError:
            raise
        except Exception as error:  # it is not that of the documents that had ended before
            outcomes = self._failed([batch.documents[index] for index in unfinished], error)
        return _completed(results, outcomes)

    async def _handle_document(self, prepared: Any, document: Document) -> Any:
        async with document.limit:
            return await self._stage.handle_document(document, prepared)

    def _failed(self, documents: Sequence[Document], error: Exception) -> list[Outcome]:
        return [self._failures.outcome_of(document, error) for document in documents]

    def _decoded(self, document: Document) -> Document | Outcome:
        """The document with its body and its time limit; its outcome if the body cannot be read."""
        body_type = self._stage.name.row.body
        has_body = body_type is not None and document.ref.action is not Action.DELETE
        try:
            body = (
                decode_part(document.body, body_type)
                if has_body and body_type is not None
                else None
            )
        except Exception as error:
            return self._failures.outcome_of(document, error)
        return msgspec.structs.replace(document, body=body, limit=TimeLimit(self._document_timeout))


def _completed(results: Sequence[Any], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The results that are outcomes; in place of the others, `outcomes` in order."""
    missing = [index for index, result in enumerate(results) if not isinstance(result, Outcome)]
    found = dict(zip(missing, outcomes, strict=True))
    return [found.get(index, result) for index, result in enumerate(results)]
