"""What the error of a document means for it, with the log lines that tell a person about it."""

import random
from collections.abc import Sequence

import structlog

from shared.pipeline.outcomes import Dead, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.correlated_failure import CorrelatedFailures, cause_of
from shared.runtime.faults.policy import charged, outcome_of, reclassified
from shared.runtime.stage import Document
from shared.service.errors import MillstreamError

log = structlog.get_logger()


class Failures:
    """Maps errors to outcomes, and charges these when the state of the dependencies is known."""

    def __init__(
        self, stage: StageName, max_attempts: int, breakers: Breakers, rng: random.Random
    ) -> None:
        self._stage = stage
        self._max_attempts = max_attempts
        self._breakers = breakers
        self._rng = rng
        self._correlated = CorrelatedFailures()

    def outcome_of(self, document: Document, error: Exception) -> Retry | Dead:
        """Return the outcome of a document whose work raised `error`."""
        ref = document.ref
        if isinstance(error, TimeoutError):
            log.warning("Job exceeded timeout", stage=self._stage, url=ref.url, job_id=ref.job_id)
        elif not isinstance(error, MillstreamError):
            log.error(
                "Unexpected error",
                stage=self._stage,
                url=ref.url,
                job_id=ref.job_id,
                exc_info=error,
            )
        return outcome_of(error, document.attempts, self._max_attempts, self._rng.random())

    async def attribute(
        self, documents: Sequence[Document], outcomes: Sequence[Outcome]
    ) -> list[Outcome]:
        """Charge failures to the documents or to the dependencies that they name.

        While a dependency is unavailable its failures cost nothing. If it is healthy, a document
        that makes it fail pays an attempt; but if nearly all documents do, the dependency is at
        fault and the stage backs off.
        """
        named = {
            o.dependency for o in outcomes if isinstance(o, Retry) and o.dependency is not None
        }
        healthy = named - await self._breakers.unavailable(named)
        attributed = [
            self._charged(document, outcome) if _is_at_fault(outcome, healthy) else outcome
            for document, outcome in zip(documents, outcomes, strict=True)
        ]
        ids = (document.ref.document_id for document in documents)
        cause = self._correlated.note(zip(ids, attributed, strict=True))
        if cause is None:
            return attributed
        self._breakers.back_off(cause)
        return [
            reclassified(outcome, self._rng.random())
            if isinstance(outcome, Retry | Dead) and cause_of(outcome) == cause
            else outcome
            for outcome in attributed
        ]

    def _charged(self, document: Document, outcome: Outcome) -> Outcome:
        assert isinstance(outcome, Retry)
        return charged(outcome, document.attempts, self._max_attempts, self._rng.random())


def _is_at_fault(outcome: Outcome, healthy: set[str]) -> bool:
    """Whether the document is at fault for a failure that it put down to a dependency."""
    return isinstance(outcome, Retry) and outcome.may_be_at_fault and outcome.dependency in healthy
