"""Whether documents that fail alike are at fault: a few are, nearly all are not."""

import pytest

from shared.pipeline.outcomes import Dead, Done, ItemState, Outcome, Retry
from shared.runtime.faults.epidemic import Complaint, Epidemic

REFUSED = Dead("tei_rejected", "why", dependency="tei")
CHARGED = Retry("424", 1.0, attempts=1, dependency="tei")
GOOD = Done(ItemState.INDEXED)


def verdict(*outcomes: Outcome) -> Complaint | None:
    return Epidemic().note((f"document {n}", outcome) for n, outcome in enumerate(outcomes))


def test_over_80_percent_of_20_that_fail_alike_are_the_dependencys_fault() -> None:
    assert verdict(*[REFUSED] * 17, *[GOOD] * 3) == Complaint("tei", "tei_rejected")
    assert verdict(*[CHARGED] * 17, *[GOOD] * 3) == Complaint("tei", "tei_error")


@pytest.mark.parametrize(
    "outcomes",
    [
        [*[REFUSED] * 16, *[GOOD] * 4],
        [REFUSED] * 19,
        [*[REFUSED] * 10, *[CHARGED] * 10],
        [*[REFUSED] * 20, *[GOOD] * 4],
        [Dead("empty_markdown", "nobody but us says so")] * 30,
        [Retry("TEI is away", 1.0, attempts=0, dependency="tei")] * 30,
        [Retry("a bug", 1.0, attempts=1)] * 30,
    ],
    ids=["16 of 20", "too few", "not alike", "over again", "our own judgement", "an outage", "a bug"],
)
def test_anything_less_is_not(outcomes: list[Outcome]) -> None:
    assert verdict(*outcomes) is None


def test_the_same_document_again_and_again_counts_once() -> None:
    epidemic = Epidemic()
    assert epidemic.note([("the same", REFUSED)] * 100) is None
