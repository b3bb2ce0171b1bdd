"""What is judged of the streams and of what waits before them."""

import datetime as dt
from typing import Any

import pytest

from cli.doctor.finding import Finding, Verdict
from cli.doctor.work import BacklogSeen, judge_backlog, judge_stage, judge_waits, live_consumers
from ingest.inspection.streams import ConsumerState, LaneState, PendingEntry, StageState
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.service.health import StageHealth, StageStatus, StageWait, WaitState

LEASE = 30.0
EMBEDDER = StageName.EMBEDDER
ABANDONED = PendingEntry(
    id="1-0", lane=Lane.NORMAL, consumer="dead", idle_ms=60_000, deliveries=1, job_id="j",
    job_ids=["j"], urls=["https://example.com/a"],
)  # fmt: skip


def stage(*consumers: tuple[str, int], depth: int = 0, **lane: Any) -> StageState:
    """A stage with one lane; consumers are names with the milliseconds since they last asked."""
    states = [
        ConsumerState(name=name, pending=0, idle_ms=idle, inactive_ms=None)
        for name, idle in consumers
    ]
    only = LaneState(lane=Lane.NORMAL, stream="s", depth=depth, consumers=states, **lane)
    return StageState(stage=EMBEDDER, rate_per_s=None, eta_s=None, lanes=[only])


def troubles(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings if finding.verdict is not Verdict.OK}


def test_a_stage_with_a_worker_that_asks_is_well() -> None:
    assert live_consumers(stage(("a", 900), ("gone", 30_000)), LEASE) == {"a"}
    assert not troubles(judge_stage(stage(("a", 900), depth=7), [], LEASE))


@pytest.mark.parametrize("consumers", [[], [("gone", 30_000)]])
def test_a_stage_without_a_worker_fails(consumers: list[tuple[str, int]]) -> None:
    found = troubles(judge_stage(stage(*consumers), [], LEASE))
    assert found.keys() == {"work.workers"}
    assert "`millstream serve embedder`" in (found["work.workers"].remedy or "")


def test_an_entry_without_a_lease_waits_for_another_worker() -> None:
    found = troubles(judge_stage(stage(("a", 900)), [ABANDONED], LEASE))["work.abandoned"]
    assert found.verdict is Verdict.WARN
    assert "dead" in found.found
    assert "https://example.com/a" in found.found
    assert "streams pending embedder --idle-over 60s" in (found.remedy or "")


def test_an_entry_without_a_worker_to_take_it_over_fails() -> None:
    found = troubles(judge_stage(stage(("dead", 60_000)), [ABANDONED], LEASE))
    assert found["work.abandoned"].verdict is Verdict.FAIL
    assert "start another worker" in (found["work.abandoned"].remedy or "")


def test_an_entry_that_was_delivered_again_is_reported() -> None:
    found = troubles(judge_stage(stage(("a", 900), redeliveries=1), [], LEASE))
    assert found.keys() == {"work.redeliveries"}
    assert found["work.redeliveries"].runbook == "poison-documents"


@pytest.mark.parametrize(
    ("due", "longest_due_s", "depth", "is_stuck"),
    [(0, 0.0, 0, False), (5, 2.0, 0, False), (5, 31.0, 0, True), (5, 3600.0, 64, False)],
)
def test_what_is_due_and_not_released_while_the_streams_are_empty_is_stuck(
    due: int, longest_due_s: float, depth: int, is_stuck: bool
) -> None:
    seen = BacklogSeen(due=due, longest_due_s=longest_due_s, stalled=0, dispatcher="host:7:b")
    found = troubles(judge_backlog(seen, stage(depth=depth)))
    assert found.keys() == ({"work.dispatch"} if is_stuck else set())
    assert all("host:7:b, releases none" in finding.found for finding in found.values())


@pytest.mark.parametrize("depth", [0, 64])
def test_what_is_due_while_no_process_is_elected_is_stuck_even_if_the_streams_are_not_empty(
    depth: int,
) -> None:
    seen = BacklogSeen(due=5, longest_due_s=31.0, stalled=0, dispatcher=None)
    found = troubles(judge_backlog(seen, stage(depth=depth)))
    assert found.keys() == {"work.dispatch"}
    assert "no ingest process is elected" in found["work.dispatch"].found
    soon = BacklogSeen(due=5, longest_due_s=2.0, stalled=0, dispatcher=None)  # at an election
    assert not troubles(judge_backlog(soon, stage(depth=depth)))


def test_documents_without_progress_in_the_streams_are_reported() -> None:
    found = troubles(
        judge_backlog(
            BacklogSeen(due=0, longest_due_s=0.0, stalled=3, dispatcher=None), stage(depth=1)
        )
    )
    assert found.keys() == {"work.progress"}
    assert found["work.progress"].found.startswith("3 documents")


def test_a_worker_that_waits_for_a_dependency_counts_although_it_asks_for_nothing() -> None:
    assert not troubles(judge_stage(stage(("a", 600_000)), [], LEASE, reported=1))


def test_what_a_stage_waits_for_fails_with_the_setting_to_correct() -> None:
    since = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
    wait = StageWait(
        dependency="qdrant", state=WaitState.UNREACHABLE, since=since, reason="refused", workers=1
    )
    waiting = StageHealth(status=StageStatus.WAITING, workers=2, entries=0, waits=[wait])
    healthy = StageHealth(status=StageStatus.HEALTHY, workers=1, entries=0, waits=[])
    [finding] = judge_waits({"chunker": healthy, "indexer": waiting})
    assert (finding.check, finding.verdict) == ("work.waits", Verdict.FAIL)
    assert finding.found.startswith("indexer: qdrant unreachable since ")
    assert "1 of 2 workers; refused" in finding.found
    assert finding.remedy == "start qdrant, or correct WEBHOOK_QDRANT_URL of the indexer"
