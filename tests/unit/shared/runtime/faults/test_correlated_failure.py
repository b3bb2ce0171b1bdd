"""Documents that fail alike: a few are at fault, nearly all are not."""

import pytest

from shared.pipeline.outcomes import Dead, Done, ItemState, Outcome, Retry
from shared.runtime.faults.correlated_failure import CorrelatedFailures, FailureCause

REFUSED = Dead("tei_rejected", "why", dependency="tei")
CHARGED = Retry("424", 1.0, attempts=1, dependency="tei")
GOOD = Done(ItemState.INDEXED)


def common_cause(*outcomes: Outcome) -> FailureCause | None:
    return CorrelatedFailures().note(
        (f"document {n}", outcome) for n, outcome in enumerate(outcomes)
    )


def test_if_over_80_percent_of_20_documents_fail_alike_the_dependency_is_at_fault() -> None:
    assert common_cause(*[REFUSED] * 17, *[GOOD] * 3) == FailureCause("tei", "tei_rejected")
    assert common_cause(*[CHARGED] * 17, *[GOOD] * 3) == FailureCause("tei", "tei_error")


@pytest.mark.parametrize(
    "outcomes",
    [
        [*[REFUSED] * 16, *[GOOD] * 4],
        [REFUSED] * 19,
        [*[REFUSED] * 10, *[CHARGED] * 10],
        [*[REFUSED] * 20, *[GOOD] * 4],
        [Dead("empty_markdown", "no dependency says so")] * 30,
        [Retry("TEI is unavailable", 1.0, attempts=0, dependency="tei")] * 30,
        [Retry("a bug", 1.0, attempts=1)] * 30,
    ],
    ids=[
        "16 of 20",
        "too few",
        "not alike",
        "over again",
        "our own judgement",
        "an outage",
        "a bug",
    ],
)
def test_otherwise_the_documents_are_at_fault(outcomes: list[Outcome]) -> None:
    assert common_cause(*outcomes) is None


def test_the_same_document_again_and_again_counts_once() -> None:
    failures = CorrelatedFailures()
    assert failures.note([("the same", REFUSED)] * 100) is None
