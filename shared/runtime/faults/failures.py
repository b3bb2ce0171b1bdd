"""What the error of one document means for it, said in the log where a person should know."""

import random
from collections.abc import Sequence

import structlog

from shared.pipeline.outcomes import Dead, Outcome, Retry, Work
from shared.pipeline.stages import StageName
from shared.runtime.faults.epidemic import Complaint, Epidemic, complaint_of
from shared.runtime.faults.policy import acquitted, outcome_of, own_fault
from shared.service.errors import MillstreamError

log = structlog.get_logger()


class Failures:
    """Turns what a handler raised for a document into its outcome (`BatchWorker`'s `on_error`)."""

    def __init__(self, stage: StageName, max_attempts: int, rng: random.Random) -> None:
        self._stage = stage
        self._max_attempts = max_attempts
        self._rng = rng
        self._epidemic = Epidemic()

    def __call__(self, work: Work, error: Exception) -> Retry | Dead:
        if isinstance(error, TimeoutError):
            log.warning("Job exceeded timeout", stage=self._stage, url=work.ref.url, job_id=work.ref.job_id)
        elif not isinstance(error, MillstreamError):
            log.error(
                "Unexpected error",
                stage=self._stage,
                url=work.ref.url,
                job_id=work.ref.job_id,
                exc_info=error,
            )
        return outcome_of(error, work.attempts, self._max_attempts, self._rng.random())

    def own_fault(self, work: Work, retry: Retry) -> Retry | Dead:
        """The outcome of a document that blames a dependency which is well."""
        return own_fault(retry, work.attempts, self._max_attempts, self._rng.random())

    def epidemic(self, works: Sequence[Work], outcomes: Sequence[Outcome]) -> Complaint | None:
        """The complaint of a dependency that finds nearly all documents at fault; None while it can be believed."""
        return self._epidemic.note((work.ref.document_id, o) for work, o in zip(works, outcomes, strict=True))

    def acquit(self, outcome: Outcome, complaint: Complaint) -> Outcome:
        """Let a document that the complaint is about be tried again, at no cost."""
        if isinstance(outcome, Retry | Dead) and complaint_of(outcome) == complaint:
            return acquitted(outcome, self._rng.random())
        return outcome
