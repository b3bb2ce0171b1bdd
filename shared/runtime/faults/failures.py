"""What the error of a document means for it, with the log lines that tell a person about it."""

import datetime as dt
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from shared.jobs.targets import Target
from shared.pipeline.outcomes import Dead, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.correlated_failure import Rests, TargetFailures, cause_of
from shared.runtime.faults.policy import (
    charged,
    outage_delay,
    outcome_of,
    reclassified,
    rest_delay,
    rested,
)
from shared.runtime.stage import Document
from shared.service.errors import MillstreamError
from shared.service.health import Wait, WaitState

log = structlog.get_logger()

IsUnavailable = Callable[[str, Target], Awaitable[bool | None]]

_STAGE_CANARY_INTERVAL = 1.0  # while servers of a target are unavailable


async def no_own_servers(_service: str, _target: Target) -> bool | None:
    """All targets share the servers of each dependency."""
    return None


class Patience(msgspec.Struct, frozen=True):
    """How often failures are tried again before they are final."""

    max_attempts: int  # of a document
    rests: Rests = Rests()  # of a target


class Failures:
    """Maps errors to outcomes, and charges these when the state of the dependencies is known."""

    def __init__(
        self, stage: StageName, patience: Patience, breakers: Breakers, rng: random.Random,
        is_unavailable: IsUnavailable = no_own_servers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`is_unavailable` asks the servers that a target has for itself: see `Stage`."""
        self._stage = stage
        self._max_attempts = patience.max_attempts
        self._breakers = breakers
        self._rng = rng
        self._is_unavailable = is_unavailable
        self._clock = clock
        self._outages: dict[str, float] = {}  # when the servers of a target failed, by target
        self._next_stage_canary = 0.0
        self._rests = patience.rests
        self._by_target: dict[str, TargetFailures] = {}
        self._waits: dict[str, Wait] = {}  # of the last rest, by target

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
        that makes it fail pays an attempt; but if nearly all documents of the target do, the
        dependency is at fault and the target rests. `target` is None if it is unknown.
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
        return attributed if target is None else self._correlated(documents, attributed, target)

    @property
    def waits(self) -> list[Wait]:
        """One for each target that rests."""
        now = self._clock()
        return [wait for name, wait in self._waits.items() if self._by_target[name].left(now)]

    def rest_of(self, target: Target) -> Retry | None:
        """The outcome of each document of a target that rests; None if it does not rest."""
        failures = self._by_target.get(target.target)
        if failures is None or failures.cause is None or not failures.left(self._clock()):
            return None
        cause = failures.cause
        return rested(
            cause.dependency, cause.code, failures.left(self._clock()), self._rng.random()
        )

    def _correlated(
        self, documents: Sequence[Document], outcomes: Sequence[Outcome], target: Target
    ) -> list[Outcome]:
        """The outcomes; those with the cause that nearly all share cost nothing during a rest."""
        failures = self._by_target.setdefault(target.target, TargetFailures(self._rests))
        ids = (document.ref.document_id for document in documents)
        begins = failures.note(zip(ids, outcomes, strict=True), self._clock())
        cause, seconds = failures.cause, failures.left(self._clock())
        if begins and cause is not None:
            self._waits[target.target] = Wait(
                dependency=cause.dependency,
                state=WaitState.FAILING,
                since=dt.datetime.now(dt.UTC),
                reason=f"nearly all documents of {target.target}: {cause.code}",
            )
            log.error(
                "Documents fail alike", dependency=cause.dependency, code=cause.code,
                target=target.target, rest_s=seconds,
            )  # fmt: skip
        if not seconds:
            return list(outcomes)
        return [
            msgspec.structs.replace(
                reclassified(outcome, self._rng.random()),
                delay=rest_delay(seconds, self._rng.random()),
            )
            if isinstance(outcome, Retry | Dead) and cause_of(outcome) == cause is not None
            else outcome
            for outcome in outcomes
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
