"""How a stage is judged from its streams and from what its workers report."""

import datetime as dt

from ingest.inspection.stage_health import stages_of, with_stages
from ingest.inspection.streams import ConsumerState, LaneState, StageState, StreamStates
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.pipeline.waits import WorkerWaits
from shared.service.health import HealthReport, StageHealth, StageStatus, Wait, WaitState

NOON = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
LEASE = 10.0


def streams(*consumers: ConsumerState, depth: int = 0) -> StreamStates:
    """An indexer with these consumers in one lane."""
    lane = LaneState(lane=Lane.LOW, stream="s", depth=depth, consumers=list(consumers))
    return StreamStates(
        stages=[StageState(stage=StageName.INDEXER, rate_per_s=None, eta_s=None, lanes=[lane])]
    )


def consumer(name: str, idle_s: float) -> ConsumerState:
    return ConsumerState(name=name, pending=0, idle_ms=int(idle_s * 1000), inactive_ms=None)


def report(name: str, *, minutes: int = 0, dependency: str = "qdrant") -> WorkerWaits:
    wait = Wait(
        dependency=dependency, state=WaitState.UNREACHABLE,
        since=NOON + dt.timedelta(minutes=minutes), reason=f"told by {name}",
    )  # fmt: skip
    return WorkerWaits(stage=StageName.INDEXER, consumer=name, waits=[wait])


def indexer(states: StreamStates, *reports: WorkerWaits) -> StageHealth:
    return stages_of(states, reports, LEASE)[StageName.INDEXER]


def test_a_stage_whose_workers_read_is_healthy() -> None:
    found = indexer(streams(consumer("a", 1), consumer("b", 99), depth=3))
    assert found == StageHealth(status=StageStatus.HEALTHY, workers=1, entries=3, waits=[])


def test_a_stage_of_which_no_consumer_reads_has_no_workers() -> None:
    assert indexer(streams(consumer("dead", 99))).status is StageStatus.NO_WORKERS


def test_a_worker_that_waits_is_alive_although_it_reads_nothing() -> None:
    found = indexer(streams(consumer("a", 600)), report("a"))
    assert (found.status, found.workers) == (StageStatus.WAITING, 1)


def test_workers_that_wait_for_the_same_are_counted_and_the_longest_wait_is_told() -> None:
    found = indexer(
        streams(), report("a", minutes=5), report("b", minutes=2), report("c", dependency="tei")
    )
    told = [(w.dependency, w.workers, w.reason) for w in found.waits]
    assert told == [("tei", 1, "told by c"), ("qdrant", 2, "told by b")]


def test_reports_of_other_stages_do_not_count() -> None:
    other = WorkerWaits(stage=StageName.EMBEDDER, consumer="e", waits=report("e").waits)
    assert indexer(streams(consumer("a", 1)), other).waits == []


def test_health_is_degraded_by_a_stage_that_is_not_healthy() -> None:
    healthy = HealthReport(status="healthy", services={"redis": "healthy"}, timestamp=NOON)
    working = stages_of(streams(consumer("a", 1)), [], LEASE)
    assert with_stages(healthy, None).status == "healthy"
    assert with_stages(healthy, working).status == "healthy"
    assert with_stages(healthy, stages_of(streams(), [], LEASE)).status == "degraded"
    assert (
        with_stages(HealthReport(status="degraded", services={}, timestamp=NOON), working).status
        == "degraded"
    )
