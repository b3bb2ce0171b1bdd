"""Whether work is stuck: in a stream without workers, with a worker that is dead, or before the streams. No I/O."""

from collections.abc import Sequence

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, warn
from ingest.inspection.streams import PendingEntry, StageState
from shared.pipeline.stages import StageName

_DISPATCHED_WITHIN_S = 30.0  # the dispatcher looks every 50 ms, and another one is elected within seconds
_MAX_NAMED = 3


class BacklogSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in Postgres, counted up to 10,000."""

    due: int  # queued documents whose time has come
    longest_due_s: float
    stalled: int  # released ones that no stage reported about for WEBHOOK_INDEXING_JOB_TIMEOUT


def live_consumers(stage: StageState, lease: float) -> set[str]:
    """The names of consumers that asked for entries within one lease (seconds)."""
    consumers = [consumer for lane in stage.lanes for consumer in lane.consumers]
    return {consumer.name for consumer in consumers if consumer.idle_ms < lease * 1000}


def judge_stage(stage: StageState, abandoned: Sequence[PendingEntry], lease: float) -> Findings:
    """Its workers and its pending entries; `abandoned` are those that were idle for more than a lease (seconds)."""
    workers = live_consumers(stage, lease)
    findings = [_workers(stage, len(workers))]
    if abandoned:
        findings.append(_abandoned(stage.stage, abandoned, has_workers=bool(workers)))
    if suspects := sum(lane.redeliveries for lane in stage.lanes):
        found = f"{suspects} pending entries of the {stage.stage} were delivered more than once"
        remedy = f"`millstream streams pending {stage.stage}` names their pages; the log says why their worker died"
        findings.append(warn("work.redeliveries", found, remedy, "poison-documents"))
    return findings


def judge_backlog(seen: BacklogSeen, first: StageState) -> Findings:
    """Whether what waits in Postgres gets into the streams of the `first` stage."""
    is_empty = not any(lane.depth for lane in first.lanes)
    findings: Findings = []
    if seen.due and is_empty and seen.longest_due_s > _DISPATCHED_WITHIN_S:
        found = f"{seen.due} documents wait in Postgres, for {seen.longest_due_s:.0f} s, and none is released"
        remedy = (
            "start ingest (`millstream serve ingest`): one of its processes dispatches; its log says why it does not"
        )
        findings.append(fail("work.dispatch", found, remedy, "stuck-entries"))
    if seen.stalled:
        found = f"{seen.stalled} documents in the streams made no progress for WEBHOOK_INDEXING_JOB_TIMEOUT"
        remedy = "`millstream streams pending STAGE`; after three times as long they are queued again by themselves"
        findings.append(warn("work.progress", found, remedy, "stuck-entries"))
    return findings or [ok("work.dispatch", f"{seen.due} documents wait in Postgres, none is stuck")]


def _workers(stage: StageState, workers: int) -> Finding:
    depth = sum(lane.depth for lane in stage.lanes)
    found = f"{stage.stage}: {workers} at work, {depth} batch messages in its streams"
    if workers:
        return ok("work.workers", found)
    return fail("work.workers", found, f"start one: `millstream serve {stage.stage}`", "dead-consumers")


def _abandoned(stage: StageName, entries: Sequence[PendingEntry], *, has_workers: bool) -> Finding:
    urls = [url for entry in entries for url in entry.urls][:_MAX_NAMED]
    holders = ", ".join(sorted({entry.consumer for entry in entries})[:_MAX_NAMED])
    found = f"{stage}: {len(entries)} entries lie with {holders} without a lease ({' '.join(urls)})"
    look = f"`millstream streams pending {stage} --idle-over 60s`"
    if has_workers:
        remedy = f"wait: another worker takes them over within seconds; if {look} still shows them, restart the {stage}"
        return warn("work.abandoned", found, remedy, "stuck-entries")
    remedy = f"start another worker, which takes them over: `millstream serve {stage}`"
    return fail("work.abandoned", found, remedy, "stuck-entries")
