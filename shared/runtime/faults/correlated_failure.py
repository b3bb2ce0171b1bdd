"""Correlated failures: when nearly all documents fail alike, their dependency is at fault. Pure.

A server may answer its canary and still refuse every document: another model behind the same
address, a collection that a person changed. Without this check every document would end as a dead
letter.
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


class CorrelatedFailures:
    """The causes of failure of the last documents of a stage."""

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
