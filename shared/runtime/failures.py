"""What the error of one document means for it, said in the log where a person should know."""

import random

import structlog

from shared.errors import MillstreamError
from shared.runtime.policy import outcome_of, own_fault
from shared.runtime.stage import Dead, Retry, Work
from shared.streams import StageName

log = structlog.get_logger()


class Failures:
    """Turns what a handler raised for a document into its outcome (`BatchWorker`'s `on_error`)."""

    def __init__(self, stage: StageName, max_attempts: int, rng: random.Random) -> None:
        self._stage = stage
        self._max_attempts = max_attempts
        self._rng = rng

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
