"""The runtime's decisions, as pure functions: which lane next, what an error means, what to do with a suspect."""

import enum
import traceback

import msgspec

from shared.pipeline.outcomes import Dead, Retry
from shared.service.errors import DependencyError, RejectedError

_FIRST_DELAY = 1.0
_MAX_DELAY = 60.0
_DEPENDENCY_DELAY = 5.0
_MAX_ERROR_CHARACTERS = 4000


class Verdict(enum.Enum):
    """What to do with an entry that was delivered `deliveries` times."""

    RUN = enum.auto()
    SPLIT = enum.auto()  # one of its documents may have killed a worker: part them
    RUN_ALONE = enum.auto()  # a suspect, kept apart so that it cannot take neighbours down
    DEAD = enum.auto()


def judge(deliveries: int, documents: int, max_deliveries: int) -> Verdict:
    """Each delivery but the first means that a worker went away while it held the entry."""
    if deliveries < 2:
        return Verdict.RUN
    if documents > 1:
        return Verdict.SPLIT
    return Verdict.DEAD if deliveries >= max_deliveries else Verdict.RUN_ALONE


def outcome_of(error: BaseException, attempts: int, max_attempts: int, jitter: float) -> Retry | Dead:
    """What an error of one document means for it. `attempts` so far; `jitter` uniform in 0..1."""
    if isinstance(error, RejectedError):
        return Dead(error.code, storable(error.reason), attempts=1, dependency=error.service)
    if isinstance(error, DependencyError):
        retry = _no_fault(error.service, str(error), jitter)
        return msgspec.structs.replace(retry, is_suspicious=error.is_suspicious)
    is_timeout = isinstance(error, TimeoutError)
    if attempts + 1 >= max_attempts:
        code = "timeout" if is_timeout else "internal_error"
        return Dead(code, _text(error), attempts=1)
    return Retry(_text(error), retry_delay(attempts, jitter), attempts=1)


def own_fault(retry: Retry, attempts: int, max_attempts: int, jitter: float) -> Retry | Dead:
    """What `retry` means once the dependency that it blames was found to be well: the document breaks it."""
    if attempts + 1 >= max_attempts:
        return Dead(f"{retry.dependency}_error", retry.reason, attempts=1, dependency=retry.dependency)
    return Retry(retry.reason, retry_delay(attempts, jitter), attempts=1, dependency=retry.dependency)


def acquitted(outcome: Retry | Dead, jitter: float) -> Retry:
    """What an outcome that was put down to the document becomes, now that its dependency is found to be at fault."""
    assert outcome.dependency is not None
    return _no_fault(outcome.dependency, outcome.error if isinstance(outcome, Dead) else outcome.reason, jitter)


def retry_delay(attempts: int, jitter: float) -> float:
    """Seconds until the next try: exponential with full jitter (AWS Architecture Blog, 2015), at least a tenth."""
    ceiling: float = min(_MAX_DELAY, _FIRST_DELAY * 2**attempts)
    return ceiling * max(jitter, 0.1)


def storable(text: str) -> str:
    """The text as Postgres takes it: without NUL and lone surrogates, and not longer than anybody reads."""
    return text[-_MAX_ERROR_CHARACTERS:].replace("\0", "").encode(errors="replace").decode()


def _no_fault(dependency: str, reason: str, jitter: float) -> Retry:
    return Retry(storable(reason), _DEPENDENCY_DELAY * (0.2 + jitter), attempts=0, dependency=dependency)


def _text(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the document exceeded its time in this stage"
    return storable("".join(traceback.format_exception(error)))
