"""Judges whether work is stuck: without workers, with a dead one, or before the streams. No I/O."""

from collections.abc import Mapping, Sequence

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, warn
from cli.doctor.vantage import VARIABLES
from cli.stall import describe
from ingest.inspection.streams import PendingEntry, StageState
from shared.pipeline.stages import StageName
from shared.service.health import StageHealth

_DISPATCHED_WITHIN_S = 30.0  # the dispatcher looks every 50 ms; a new one is elected in seconds
_MAX_NAMED = 3


class BacklogSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in Postgres, counted up to 10,000."""

    due: int  # queued documents whose time has come
    longest_due_s: float
    stalled: int  # released ones without progress for WEBHOOK_INDEXING_JOB_TIMEOUT
    dispatcher: str | None  # the elected process, host:pid:bootid; None: none is elected


def live_consumers(stage: StageState, lease: float) -> set[str]:
    """The names of consumers that asked for entries within one lease (seconds)."""
    consumers = [consumer for lane in stage.lanes for consumer in lane.consumers]
    return {consumer.name for consumer in consumers if consumer.idle_ms < lease * 1000}


def judge_stage(
    stage: StageState, abandoned: Sequence[PendingEntry], lease: float, reported: int = 0
) -> Findings:
    """Its workers and its pending entries.

    `abandoned` are entries that were idle for more than one lease (seconds). `reported` workers
    are alive according to ingest: one that waits for a dependency asks for no entries.
    """
    workers = max(len(live_consumers(stage, lease)), reported)
    findings = [_workers(stage, workers)]
    if abandoned:
        findings.append(_abandoned(stage.stage, abandoned, has_workers=workers > 0))
    if redelivered := sum(lane.redeliveries for lane in stage.lanes):
        findings.append(
            warn(
                "work.redeliveries",
                f"{redelivered} pending entries of the {stage.stage} were delivered more than once",
                f"`millstream streams pending {stage.stage}` names their pages; the log says why "
                "their worker died",
                "poison-documents",
            )
        )
    return findings


def judge_waits(stages: Mapping[str, StageHealth]) -> Findings:
    """The dependencies that stages wait for, as their workers report them."""
    return [
        fail(
            "work.waits",
            f"{name}: {describe(msgspec.to_builtins(wait), stage.workers)}",
            f"start {wait.dependency}, or correct {VARIABLES[wait.dependency]} of the {name}",
        )
        for name, stage in stages.items()
        for wait in stage.waits
    ]


def judge_backlog(seen: BacklogSeen, first: StageState) -> Findings:
    """Whether what waits in Postgres is released to the streams of the `first` stage."""
    is_empty = not any(lane.depth for lane in first.lanes)
    findings: Findings = []
    is_late = seen.due > 0 and seen.longest_due_s > _DISPATCHED_WITHIN_S
    if is_late and (is_empty or seen.dispatcher is None):
        findings.append(_not_dispatched(seen))
    if seen.stalled:
        findings.append(
            warn(
                "work.progress",
                f"{seen.stalled} documents in the streams made no progress for "
                "WEBHOOK_INDEXING_JOB_TIMEOUT",
                "`millstream streams pending STAGE`; after three times as long they are queued "
                "again automatically",
                "stuck-entries",
            )
        )
    return findings or [
        ok("work.dispatch", f"{seen.due} documents wait in Postgres, none is stuck")
    ]


def _not_dispatched(seen: BacklogSeen) -> Finding:
    waits = f"{seen.due} documents wait in Postgres, one for {seen.longest_due_s:.0f} s"
    if seen.dispatcher is None:
        return fail(
            "work.dispatch",
            f"{waits}, and no ingest process is elected to release them",
            "start ingest (`millstream serve ingest`): one of its processes dispatches, and its "
            "log says why it does not",
            "stuck-entries",
        )
    return fail(
        "work.dispatch",
        f"{waits}, and the elected process, {seen.dispatcher}, releases none",
        "its log says why; another ingest process takes over when you stop it",
        "stuck-entries",
    )


def _workers(stage: StageState, workers: int) -> Finding:
    depth = sum(lane.depth for lane in stage.lanes)
    found = f"{stage.stage}: {workers} workers, {depth} batch messages in its streams"
    if workers:
        return ok("work.workers", found)
    remedy = f"start one: `millstream serve {stage.stage}`"
    return fail("work.workers", found, remedy, "dead-consumers")


def _abandoned(stage: StageName, entries: Sequence[PendingEntry], *, has_workers: bool) -> Finding:
    urls = [url for entry in entries for url in entry.urls][:_MAX_NAMED]
    holders = ", ".join(sorted({entry.consumer for entry in entries})[:_MAX_NAMED])
    found = f"{stage}: {len(entries)} entries of {holders} have no lease ({' '.join(urls)})"
    look = f"`millstream streams pending {stage} --idle-over 60s`"
    if has_workers:
        remedy = (
            f"wait: another worker takes them over within seconds; if {look} still shows them, "
            f"restart the {stage}"
        )
        return warn("work.abandoned", found, remedy, "stuck-entries")
    remedy = f"start another worker, which takes them over: `millstream serve {stage}`"
    return fail("work.abandoned", found, remedy, "stuck-entries")
