"""What the error of a document means for it, with the log lines that tell a person about it."""

import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from shared.jobs.targets import Target
from shared.pipeline.outcomes import Dead, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.correlated_failure import CorrelatedFailures, cause_of
from shared.runtime.faults.policy import charged, outage_delay, outcome_of, reclassified
from shared.runtime.stage import Document
from shared.service.errors import MillstreamError

log = structlog.get_logger()

IsUnavailable = Callable[[str, Target], Awaitable[bool | None]]

_STAGE_CANARY_INTERVAL = 1.0  # while servers of a target are unavailable


async def no_own_servers(_service: str, _target: Target) -> bool | None:
    """All targets share the servers of each dependency."""
    return None


class Failures:
    """Maps errors to outcomes, and charges these when the state of the dependencies is known."""

    def __init__(
        self, stage: StageName, max_attempts: int, breakers: Breakers, rng: random.Random,
        is_unavailable: IsUnavailable = no_own_servers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`is_unavailable` asks the servers that a target has for itself: see `Stage`."""
        self._stage = stage
        self._max_attempts = max_attempts
        self._breakers = breakers
        self._rng = rng
        self._is_unavailable = is_unavailable
        self._clock = clock
        self._outages: dict[str, float] = {}  # when the servers of a target failed, by target
        self._next_stage_canary = 0.0
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
        self,
        documents: Sequence[Document],
        outcomes: Sequence[Outcome],
        target: Target | None = None,
    ) -> list[Outcome]:
        """Charge failures to the documents or to the dependencies that they name.

        While a dependency is unavailable its failures cost nothing. If it is healthy, a document
        that makes it fail pays an attempt; but if nearly all documents do, the dependency is at
        fault and the stage backs off. `target` is that of the documents, None if it is unknown.
        """
        named = {
            o.dependency for o in outcomes if isinstance(o, Retry) and o.dependency is not None
        }
        own = await self._own_unavailable(named, target) if target is not None else {}
        shared = await self._breakers.unavailable(named - own.keys())
        unavailable = {service for service, is_down in own.items() if is_down} | shared
        attributed = [
            self._charged(document, outcome)
            if _is_at_fault(outcome, named - unavailable)
            else self._postponed(outcome, target)
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

    async def _own_unavailable(self, services: set[str], target: Target) -> dict[str, bool]:
        """Whether the servers that the target has for itself are unavailable, by service."""
        answers = {service: await self._is_unavailable(service, target) for service in services}
        own = {service: is_down for service, is_down in answers.items() if is_down is not None}
        if not any(own.values()):
            self._outages.pop(target.target, None)
            return own
        self._outages.setdefault(target.target, self._clock())
        if self._clock() >= self._next_stage_canary:
            self._next_stage_canary = self._clock() + _STAGE_CANARY_INTERVAL
            # If no other servers are available either, the stage stops.
            await self._breakers.unavailable({service for service, down in own.items() if down})
        return own

    def _postponed(self, outcome: Outcome, target: Target | None) -> Outcome:
        """The outcome, with a delay that grows while the servers of the target are unavailable."""
        began = self._outages.get(target.target) if target is not None else None
        if began is None or not isinstance(outcome, Retry) or outcome.dependency is None:
            return outcome
        delay = outage_delay(self._clock() - began, self._rng.random())
        return msgspec.structs.replace(outcome, delay=delay)

    def _charged(self, document: Document, outcome: Outcome) -> Outcome:
        assert isinstance(outcome, Retry)
        return charged(outcome, document.attempts, self._max_attempts, self._rng.random())


def _is_at_fault(outcome: Outcome, healthy: set[str]) -> bool:
    """Whether the document is at fault for a failure that it put down to a dependency."""
    return isinstance(outcome, Retry) and outcome.may_be_at_fault and outcome.dependency in healthy
