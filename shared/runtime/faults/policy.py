"""Decisions about faults: what an error means, how to treat a redelivered entry. Pure."""

import enum
import traceback

import msgspec

from shared.pipeline.outcomes import Dead, Retry
from shared.service.errors import DependencyError, RejectedError

_FIRST_DELAY = 1.0
_MAX_DELAY = 60.0
_DEPENDENCY_DELAY = 5.0
_MAX_ERROR_CHARACTERS = 4000


class Treatment(enum.Enum):
    """How an entry is worked on."""

    RUN = enum.auto()
    RERUN = enum.auto()  # it was in flight at one crash: run it in one half of the slots
    SPLIT = enum.auto()  # one of its documents may have crashed a worker: deliver each by itself
    QUARANTINE = enum.auto()  # run it alone, so that a crash takes no other entry down
    DEAD_LETTER = enum.auto()


def treatment_of(deliveries: int, documents: int, max_deliveries: int) -> Treatment:
    """Decide by the deliveries: each one but the first means that a worker crashed with it.

    After one crash nearly all entries are not at fault: they run again, half of them at once.
    What was in flight at a second crash runs alone, at least once before it is a dead letter.
    """
    if deliveries < 2:
        return Treatment.RUN
    if deliveries == 2 and max_deliveries > 3:
        return Treatment.RERUN
    if documents > 1:
        return Treatment.SPLIT
    return Treatment.DEAD_LETTER if deliveries >= max_deliveries else Treatment.QUARANTINE


def outcome_of(
    error: BaseException, attempts: int, max_attempts: int, jitter: float
) -> Retry | Dead:
    """Return the outcome of a document that raised `error` after `attempts` attempts.

    `jitter` is uniform in 0..1.
    """
    if isinstance(error, RejectedError):
        return Dead(error.code, storable(error.reason), attempts=1, dependency=error.service)
    if isinstance(error, DependencyError):
        retry = _no_fault(error.service, str(error), jitter)
        return msgspec.structs.replace(retry, may_be_at_fault=error.may_be_at_fault)
    is_timeout = isinstance(error, TimeoutError)
    if attempts + 1 >= max_attempts:
        code = "timeout" if is_timeout else "internal_error"
        return Dead(code, _text(error), attempts=1)
    return Retry(_text(error), retry_delay(attempts, jitter), attempts=1)


def charged(retry: Retry, attempts: int, max_attempts: int, jitter: float) -> Retry | Dead:
    """Charge an attempt to the document, because the dependency that it failed on is healthy."""
    if attempts + 1 >= max_attempts:
        return Dead(
            f"{retry.dependency}_error", retry.reason, attempts=1, dependency=retry.dependency
        )
    return Retry(
        retry.reason, retry_delay(attempts, jitter), attempts=1, dependency=retry.dependency
    )


def reclassified(outcome: Retry | Dead, jitter: float) -> Retry:
    """Reclassify a failure of the document as one of its dependency, which costs no attempt."""
    assert outcome.dependency is not None
    return _no_fault(
        outcome.dependency, outcome.error if isinstance(outcome, Dead) else outcome.reason, jitter
    )


def rested(dependency: str, code: str, seconds: float, jitter: float) -> Retry:
    """Return the outcome of a document whose target rests for `seconds`; it costs nothing."""
    reason = f"nearly all documents of its collection: {code}"
    return Retry(reason, rest_delay(seconds, jitter), attempts=0, dependency=dependency)


def rest_delay(seconds: float, jitter: float) -> float:
    """Return the seconds until the next try of a document whose target rests for `seconds`."""
    return seconds + _DEPENDENCY_DELAY * jitter


def retry_delay(attempts: int, jitter: float) -> float:
    """Return the seconds until the next try: exponential with full jitter, not below a tenth of it.

    Full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
    """
    ceiling: float = min(_MAX_DELAY, _FIRST_DELAY * 2**attempts)
    return ceiling * max(jitter, 0.1)


def outage_delay(age: float, jitter: float) -> float:
    """Return the seconds until the next try of a document whose servers have failed for `age`.

    About as long as the outage, at most 72: tries of many documents cost the healthy ones time.
    """
    return min(_MAX_DELAY, max(_DEPENDENCY_DELAY, age)) * (0.2 + jitter)


def storable(text: str) -> str:
    """Return the text for Postgres: its last 4,000 characters, no NUL, no lone surrogate."""
    return text[-_MAX_ERROR_CHARACTERS:].replace("\0", "").encode(errors="replace").decode()


def _no_fault(dependency: str, reason: str, jitter: float) -> Retry:
    return Retry(storable(reason), outage_delay(0.0, jitter), attempts=0, dependency=dependency)


def _text(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the document exceeded its time in this stage"
    return storable("".join(traceback.format_exception(error)))
