"""Too many documents that fail alike are not at fault themselves: their judge is. Pure.

A server may be well by its canary and still refuse whatever it is asked to do: another model behind the same address, a
collection that somebody changed. Without this every document would end as a dead letter.
"""

from collections.abc import Iterable

import msgspec

from shared.pipeline.outcomes import Dead, Outcome, Retry

_DOCUMENTS = 20  # distinct ones; fewer prove nothing
_SHARE = 0.8


class Complaint(msgspec.Struct, frozen=True):
    """A dependency that is well says that a document is at fault."""

    dependency: str
    code: str


def complaint_of(outcome: Outcome) -> Complaint | None:
    """Who found the document at fault, if it was a dependency."""
    if isinstance(outcome, Dead) and outcome.dependency is not None:
        return Complaint(outcome.dependency, outcome.code)
    if isinstance(outcome, Retry) and outcome.dependency is not None and outcome.attempts:
        return Complaint(outcome.dependency, f"{outcome.dependency}_error")
    return None


class Epidemic:
    """What became of the last documents of a stage."""

    def __init__(self) -> None:
        self._last: dict[str, Complaint | None] = {}  # by document id, the latest at the end

    def note(self, outcomes: Iterable[tuple[str, Outcome]]) -> Complaint | None:
        """Note what became of documents; the complaint, if over 80% of the last 20 distinct ones share one."""
        for document_id, outcome in outcomes:
            complaint = complaint_of(outcome)
            if complaint is None and isinstance(outcome, Retry):
                continue  # nothing was decided about it
            self._last.pop(document_id, None)
            self._last[document_id] = complaint
        for document_id in list(self._last)[:-_DOCUMENTS]:
            del self._last[document_id]
        complaints = [complaint for complaint in self._last.values() if complaint is not None]
        common = max(set(complaints), key=complaints.count, default=None)
        if common is None or len(self._last) < _DOCUMENTS or complaints.count(common) <= _SHARE * _DOCUMENTS:
            return None
        return common
