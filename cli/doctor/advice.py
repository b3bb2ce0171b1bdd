"""What measured times say: failure rate, batch size, time limit, and where another replica would help. No I/O."""

from collections.abc import Sequence

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, warn
from cli.doctor.load import StageLoad
from shared.streams import StageName

WARN_FAILED, STOP_FAILED = 0.05, 0.10  # shares of documents
SHORT_S, LONG_S = 1.0, 5.0  # of a batch message in its slowest stage
TIMEOUT_FACTOR = 3.0  # a time limit of so many means cuts off what hangs, and nothing that only takes longer
_MAX_DOCUMENTS = 32  # per message
_BUSY = 0.6  # share of its slots; a stage below it waits for work, not the work for it


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline is set to, and what waits for it."""

    batch_size: str  # a number, or `auto`
    timeout_s: float  # WEBHOOK_INDEXING_JOB_TIMEOUT
    has_backlog: bool  # documents wait in Postgres
    is_tei_on_gpu: bool


def measured(loads: Sequence[StageLoad], conditions: Conditions) -> Findings:
    """What the times of the stages say; `loads` has one at least."""
    slowest = max(loads, key=lambda load: load.mean_s)
    return [batch_size(slowest, conditions), time_limit(slowest, conditions), next_replica(loads, conditions)]


def failure_rate(total: int, failed: int) -> Finding:
    """The share of the last hour's documents that failed for good."""
    check = "documents.failed"
    if not total:
        return ok(check, "no document ended within the last hour")
    share = failed / total
    found = f"{failed} of {total} documents failed within the last hour ({share:.1%})"
    look = "`millstream dead list --since 1h` says why; `millstream dead replay --code CODE` when the cause is gone"
    if share > STOP_FAILED:
        return fail(check, f"{found}: stop and look", f"stop sending; {look}", "partial-failures")
    if share > WARN_FAILED:
        return warn(check, found, look, "partial-failures")
    return ok(check, found)


def batch_size(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether a batch message is short enough to be done again after a crash, and long enough to be cheap."""
    check, size = "batches.size", conditions.batch_size
    found = f"a batch message takes the {slowest.stage} {slowest.mean_s:.2g} s (WEBHOOK_WORKER_BATCH_SIZE={size})"
    if size == "auto":
        return ok(check, found)
    if slowest.mean_s > LONG_S:
        if int(size) == 1:
            remedy = f"it cannot be smaller: a faster {slowest.stage}, or shorter pages"
        else:
            smaller = max(1, int(int(size) * LONG_S / slowest.mean_s / 2))
            remedy = f"a smaller one: WEBHOOK_WORKER_BATCH_SIZE={smaller} for ingest, or auto"
        return warn(check, f"{found}, more than {LONG_S:g} s", remedy, "slowness")
    if slowest.mean_s < SHORT_S and int(size) < _MAX_DOCUMENTS:
        remedy = f"a larger one: WEBHOOK_WORKER_BATCH_SIZE={min(_MAX_DOCUMENTS, 2 * int(size))} for ingest, or auto"
        if conditions.has_backlog:
            return warn(check, f"{found}, less than {SHORT_S:g} s, while documents wait", remedy, "slowness")
        return ok(check, f"{found}, less than {SHORT_S:g} s", f"when many documents wait, {remedy}")
    return ok(check, found)


def time_limit(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether the time limit of a batch message is well above what it takes."""
    wanted = TIMEOUT_FACTOR * slowest.mean_s
    found = f"a batch message may take {conditions.timeout_s:g} s; {TIMEOUT_FACTOR:g} times the mean is {wanted:.2g} s"
    if conditions.timeout_s < wanted:
        remedy = f"WEBHOOK_INDEXING_JOB_TIMEOUT={max(1, round(wanted))}s for all services"
        return warn("batches.timeout", found, remedy, "timeouts")
    return ok("batches.timeout", found)


def next_replica(loads: Sequence[StageLoad], conditions: Conditions) -> Finding:
    """Which stage is the bottleneck, and how many documents a second another process of it would bring.

    A stage that did x documents a second with a share u of its slots taken can do x / u. One more process of the
    busiest stage raises its limit in proportion, up to the limit of the next one.
    """
    check = "replicas"
    by_use = sorted(loads, key=lambda load: load.utilisation, reverse=True)
    busiest = by_use[0]
    rates = ", ".join(f"{load.stage} {load.documents_per_s:.2g}/s at {load.utilisation:.0%}" for load in loads)
    if busiest.utilisation < _BUSY:
        return ok(check, f"no stage is at its limit ({rates}): another process would bring nothing")
    now = limit(busiest)
    grown = now * (busiest.workers + 1) / busiest.workers
    others = [(limit(load), load.stage) for load in by_use[1:]]
    ceiling, following = min(others, default=(grown, busiest.stage))
    then = max(now, min(grown, ceiling))
    bound = f", where the {following} is the limit" if ceiling < grown else ""
    gain = f"up to {then:.2g} documents a second instead of {now:.2g}{bound}"
    found = f"the {busiest.stage} is the bottleneck ({rates})"
    remedy = f"{_more_of(busiest, conditions)}: {gain}"
    return warn(check, found, remedy, "slowness") if conditions.has_backlog else ok(check, found, remedy)


def limit(load: StageLoad) -> float:
    """Documents a second that the stage can do with its processes."""
    return load.documents_per_s / max(load.utilisation, 0.001)


def _more_of(busiest: StageLoad, conditions: Conditions) -> str:
    if busiest.stage is StageName.EMBEDDER and not conditions.is_tei_on_gpu:
        # An embedder only waits for TEI; on a CPU that does one request after the other, a second one waits as well.
        return "another TEI server in WEBHOOK_TEI_URL"
    return f"another {busiest.stage}, `docker compose up --detach --scale {busiest.stage}={busiest.workers + 1}`"
