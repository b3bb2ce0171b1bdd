"""The health of each stage: live workers, entries in its streams, dependencies that workers wait
for. Pure.
"""

from collections.abc import Sequence
from itertools import groupby

from msgspec.structs import replace

from ingest.inspection.streams import StageState, StreamStates
from shared.pipeline.waits import WorkerWaits
from shared.service.health import HealthReport, StageHealth, StageStatus, StageWait, Wait, WaitState

Stages = dict[str, StageHealth]


def stages_of(states: StreamStates, reports: Sequence[WorkerWaits], lease: float) -> Stages:
    """All stages; `lease` is in seconds."""
    return {
        state.stage: _stage_of(state, [r for r in reports if r.stage is state.stage], lease)
        for state in states.stages
    }


def with_stages(report: HealthReport, stages: Stages | None) -> HealthReport:
    """The report with the stages; degraded if one of them is not healthy."""
    if stages is None:
        return report
    is_healthy = all(stage.status is StageStatus.HEALTHY for stage in stages.values())
    return replace(report, status=report.status if is_healthy else "degraded", stages=stages)


def _stage_of(state: StageState, reports: Sequence[WorkerWaits], lease: float) -> StageHealth:
    consumers = [consumer for lane in state.lanes for consumer in lane.consumers]
    reading = {consumer.name for consumer in consumers if consumer.idle_ms < lease * 1000}
    # A worker with an open breaker reads nothing and seems idle; its report proves that it is
    # alive.
    workers = reading | {report.consumer for report in reports}
    waits = _merged([wait for report in reports for wait in report.waits])
    status = (
        StageStatus.WAITING if waits else StageStatus.HEALTHY if workers else StageStatus.NO_WORKERS
    )
    entries = sum(lane.depth for lane in state.lanes)
    return StageHealth(status=status, workers=len(workers), entries=entries, waits=waits)


def _merged(waits: Sequence[Wait]) -> list[StageWait]:
    """One wait per dependency and state, from the worker that has waited longest; oldest first."""

    def kind(wait: Wait) -> tuple[str, WaitState]:
        return wait.dependency, wait.state

    groups = [list(group) for _, group in groupby(sorted(waits, key=kind), key=kind)]
    merged = [_merge(group) for group in groups]
    return sorted(merged, key=lambda wait: wait.since)


def _merge(group: Sequence[Wait]) -> StageWait:
    first = min(group, key=lambda wait: wait.since)
    return StageWait(
        dependency=first.dependency,
        state=first.state,
        since=first.since,
        reason=first.reason,
        workers=len(group),
    )
