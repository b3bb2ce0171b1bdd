"""Correlated failures: when nearly all documents of a target fail alike, their dependency is at
fault. Pure.

A server may answer its canary and still refuse every document: another model behind the same
address, a collection that a person changed. Then the target rests, so that a person can act before
every document is a dead letter. After the last rest the failures are the documents' own.
"""

from collections.abc import Iterable

import msgspec

from shared.pipeline.outcomes import Dead, Outcome, Retry

_DOCUMENTS = 20  # distinct ones; fewer prove nothing
_SHARE = 0.8


class FailureCause(msgspec.Struct, frozen=True):
    """A healthy dependency finds a document at fault."""

    dependency: str
    code: str


def cause_of(outcome: Outcome) -> FailureCause | None:
    """Return which dependency found the document at fault, if one did."""
    if isinstance(outcome, Dead) and outcome.dependency is not None:
        return FailureCause(outcome.dependency, outcome.code)
    if isinstance(outcome, Retry) and outcome.dependency is not None and outcome.attempts:
        return FailureCause(outcome.dependency, f"{outcome.dependency}_error")
    return None


class Rests(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long a target rests while its documents go on failing alike."""

    first: float = 30.0  # seconds; doubled each time
    longest: float = 600.0
    count: int = 6  # 25 minutes in all

    def seconds(self, rested: int) -> float:
        """The length of the next rest after so many."""
        return min(self.longest, self.first * 2.0**rested)


class TargetFailures:
    """Whether the documents of one target fail alike, and its rests."""

    def __init__(self, rests: Rests) -> None:
        self._rests = rests
        self._last = CorrelatedFailures()
        self._rested = 0
        self._until = 0.0
        self.cause: FailureCause | None = None  # of the last documents, if nearly all share it

    def left(self, now: float) -> float:
        """Seconds of the present rest that are left; 0 while it does not rest."""
        return max(0.0, self._until - now) if self.cause is not None else 0.0

    def note(self, outcomes: Iterable[tuple[str, Outcome]], now: float) -> bool:
        """Note outcomes by document id; whether a rest begins.

        When a document succeeds in between, the rests are counted from the beginning.
        """
        self.cause = self._last.note(outcomes)
        if self.cause is None:
            self._rested = 0
            return False
        if self.left(now) or self._rested >= self._rests.count:
            return False
        self._until = now + self._rests.seconds(self._rested)
        self._rested += 1
        return True


class CorrelatedFailures:
    """The causes of failure of the last documents of a target."""

    def __init__(self) -> None:
        self._last: dict[str, FailureCause | None] = {}  # by document id, the latest at the end

    def note(self, outcomes: Iterable[tuple[str, Outcome]]) -> FailureCause | None:
        """Note outcomes by document id.

        Returns the cause that over 80% of the last 20 distinct documents share.
        """
        for document_id, outcome in outcomes:
            cause = cause_of(outcome)
            if cause is None and isinstance(outcome, Retry):
                continue  # nothing was decided about it
            self._last.pop(document_id, None)
            self._last[document_id] = cause
        for document_id in list(self._last)[:-_DOCUMENTS]:
            del self._last[document_id]
        causes = [cause for cause in self._last.values() if cause is not None]
        common = max(set(causes), key=causes.count, default=None)
        if (
            common is None
            or len(self._last) < _DOCUMENTS
            or causes.count(common) <= _SHARE * _DOCUMENTS
        ):
            return None
        return common
