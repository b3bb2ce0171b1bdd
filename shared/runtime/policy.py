"""The runtime's decisions, as pure functions: which lane next, what an error means, what to do with a suspect."""

import enum
import traceback
from collections.abc import Collection

import msgspec

from shared.errors import DependencyError, RejectedError
from shared.messages import Lane
from shared.runtime.stage import Dead, Retry

# Shares of a stage's reading, by documents, and of the embedder's requests. None starves: the low lane gets a tenth.
LANE_WEIGHTS = {Lane.HIGH: 6, Lane.NORMAL: 3, Lane.LOW: 1}

_FIRST_DELAY = 1.0
_MAX_DELAY = 60.0
_DEPENDENCY_DELAY = 5.0
_MAX_ERROR_CHARACTERS = 4000


class FairLanes:
    """Weighted fair queuing over the lanes: the next lane is the one with the least service for its weight."""

    def __init__(self) -> None:
        self._finish = dict.fromkeys(Lane, 0.0)  # virtual finish time of each lane
        self._now = 0.0  # virtual time of the lane served last

    def order(self, lanes: Collection[Lane]) -> list[Lane]:
        """The lanes in the order in which they are to be tried."""
        return sorted(lanes, key=lambda lane: (self._finish[lane], -LANE_WEIGHTS[lane]))

    def served(self, lane: Lane, documents: int) -> None:
        self._now = self._finish[lane]
        self._finish[lane] += documents / LANE_WEIGHTS[lane]

    def found_empty(self, lane: Lane) -> None:
        """An empty lane saves up no claim for later."""
        self._finish[lane] = max(self._finish[lane], self._now)


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
