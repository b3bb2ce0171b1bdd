"""Decisions of the runtime: fair lanes, redelivered entries, what errors cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pipeline.lanes import FairLanes, Lane
from shared.pipeline.outcomes import Dead, Retry
from shared.runtime.faults.policy import (
    Treatment,
    charged,
    outcome_of,
    reclassified,
    retry_delay,
    treatment_of,
)
from shared.service.errors import DependencyError, RejectedError


def serve(lanes: FairLanes, waiting: dict[Lane, int], rounds: int) -> dict[Lane, int]:
    served = dict.fromkeys(Lane, 0)
    for _ in range(rounds):
        for lane in lanes.order(list(Lane)):
            if waiting[lane]:
                waiting[lane] -= 1
                served[lane] += 1
                lanes.served(lane, 1)
                break
            lanes.found_empty(lane)
    return served


def test_busy_lanes_are_served_six_to_three_to_one() -> None:
    served = serve(FairLanes(), dict.fromkeys(Lane, 10_000), rounds=1000)
    assert served == {Lane.HIGH: 600, Lane.NORMAL: 300, Lane.LOW: 100}


def test_an_idle_lane_accrues_no_credit() -> None:
    lanes = FairLanes()
    serve(lanes, {Lane.HIGH: 0, Lane.NORMAL: 0, Lane.LOW: 10_000}, rounds=5000)
    served = serve(lanes, dict.fromkeys(Lane, 10_000), rounds=100)
    assert served[Lane.LOW] >= 9
    assert served[Lane.HIGH] <= 62


def test_a_large_batch_counts_by_its_documents() -> None:
    lanes = FairLanes()
    lanes.served(Lane.HIGH, 60)
    assert lanes.order(list(Lane))[0] is not Lane.HIGH


@pytest.mark.parametrize(
    ("deliveries", "documents", "treatment"),
    [
        (1, 4, Treatment.RUN),
        (2, 4, Treatment.RERUN),
        (3, 4, Treatment.SPLIT),
        (7, 4, Treatment.SPLIT),
        (2, 1, Treatment.RERUN),
        (3, 1, Treatment.QUARANTINE),
        (4, 1, Treatment.QUARANTINE),
        (5, 1, Treatment.DEAD_LETTER),
    ],
)
def test_a_redelivered_entry_runs_again_then_is_split_then_quarantined_then_dead(
    deliveries: int, documents: int, treatment: Treatment
) -> None:
    assert treatment_of(deliveries, documents, max_deliveries=5) is treatment


@given(st.integers(1, 9), st.integers(2, 9))
def test_no_document_is_dead_before_it_ran_alone_unless_two_deliveries_are_the_limit(
    documents: int, max_deliveries: int
) -> None:
    """Each delivery ends in a crash; a split carries the deliveries."""
    seen, deliveries = [], 1
    while (now := treatment_of(deliveries, documents, max_deliveries)) is not Treatment.DEAD_LETTER:
        seen.append(now)
        documents, deliveries = (
            (1, deliveries) if now is Treatment.SPLIT else (documents, deliveries + 1)
        )
    assert (Treatment.QUARANTINE in seen) == (max_deliveries > 2)
    assert deliveries == max_deliveries


def test_a_rejected_document_is_dead_at_once() -> None:
    assert outcome_of(RejectedError("code", "why"), 0, 5, 0.5) == Dead("code", "why", attempts=1)


def test_a_dependency_costs_no_attempt_however_often() -> None:
    outcome = outcome_of(DependencyError("tei", "away"), attempts=4, max_attempts=5, jitter=0.5)
    assert isinstance(outcome, Retry)
    assert outcome.attempts == 0


def test_a_failure_that_is_reclassified_costs_nothing_and_keeps_its_reason() -> None:
    dead = outcome_of(RejectedError("tei_rejected", "why", "tei"), 0, 5, 0.5)
    assert isinstance(dead, Dead)
    retry = reclassified(dead, jitter=0.5)
    assert (retry.attempts, retry.dependency, retry.reason) == (0, "tei", "why")


def test_a_document_that_makes_a_healthy_dependency_fail_pays_until_it_is_dead() -> None:
    retry = Retry("424", 1.0, attempts=0, dependency="tei", may_be_at_fault=True)
    first, last = charged(retry, 0, 2, jitter=0.5), charged(retry, 1, 2, jitter=0.5)
    assert isinstance(first, Retry)
    assert (first.attempts, first.dependency) == (1, "tei")
    assert last == Dead("tei_error", "424", attempts=1, dependency="tei")


def test_a_bug_is_tried_again_and_then_dead_with_its_traceback() -> None:
    first = outcome_of(ValueError("boom"), attempts=3, max_attempts=5, jitter=0.5)
    last = outcome_of(ValueError("boom"), attempts=4, max_attempts=5, jitter=0.5)
    assert isinstance(first, Retry)
    assert first.attempts == 1
    assert isinstance(last, Dead)
    assert (last.code, "ValueError: boom" in last.error) == ("internal_error", True)


def test_a_document_over_its_time_costs_one_attempt() -> None:
    outcome = outcome_of(TimeoutError(), attempts=0, max_attempts=5, jitter=0.5)
    assert isinstance(outcome, Retry)
    assert outcome.attempts == 1


@given(st.integers(0, 50), st.floats(0, 1))
def test_retry_delays_are_positive_and_bounded(attempts: int, jitter: float) -> None:
    assert 0 < retry_delay(attempts, jitter) <= 60
