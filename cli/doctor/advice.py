"""Advice from measured times: failure rate, batch size, time limit, next replica. No I/O."""

import msgspec

from cli.doctor.finding import Finding, Findings, fail, figure, ok, warn
from cli.doctor.load import Load, StageLoad
from ingest.dispatch.sizing import LONG_S, MAX_DOCUMENTS, SHORT_S
from shared.pipeline.stages import StageName

WARN_FAILED, STOP_FAILED = 0.05, 0.10  # shares of documents
# A time limit of so many means stops what hangs, and nothing that only takes longer.
TIMEOUT_FACTOR = 3.0
_BUSY = 0.6  # share in use; below it a stage waits for work, not the work for it
_REQUESTS_OF_A_GPU = 8  # in parallel, up to which an L4 gained; a CPU handles one at a time


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the pipeline, and whether documents wait."""

    batch_size: str  # a number, or `auto`
    timeout_s: float  # WEBHOOK_INDEXING_JOB_TIMEOUT
    has_backlog: bool  # documents wait in Postgres


class TeiLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The TEI servers while the load was measured."""

    servers: int
    is_on_gpu: bool
    request_s: float  # of all requests together

    def utilisation(self, active_s: float) -> float:
        """The share of their parallel requests in use, 0 to 1."""
        parallel = self.servers * (_REQUESTS_OF_A_GPU if self.is_on_gpu else 1)
        return min(1.0, self.request_s / (active_s * parallel))


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A component that scales out."""

    name: str
    count: int
    utilisation: float
    one_more: str  # how to get another one


def measured(load: Load, tei: TeiLoad, conditions: Conditions) -> Findings:
    """Batch size, time limit and bottleneck, from the times of the stages."""
    slowest = max(load.stages, key=lambda stage: stage.mean_s)
    return [
        batch_size(slowest, conditions),
        time_limit(slowest, conditions),
        next_replica(load, tei, conditions),
    ]


def failure_rate(total: int, failed: int) -> Finding:
    """The share of the last hour's documents that failed for good."""
    check = "documents.failed"
    if not total:
        return ok(check, "no document ended within the last hour")
    share = failed / total
    found = f"{failed} of {total} documents failed within the last hour ({share:.1%})"
    look = (
        "`millstream dead list --since 1h` says why; `millstream dead replay --code CODE` once the "
        "cause is removed"
    )
    if share > STOP_FAILED:
        return fail(check, f"{found}: stop and look", f"stop sending; {look}", "partial-failures")
    if share >= WARN_FAILED:
        return warn(check, found, look, "partial-failures")
    return ok(check, found)


def batch_size(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether a batch message is short enough to repeat after a crash, and long enough."""
    check, size, mean = "batches.size", conditions.batch_size, figure(slowest.mean_s)
    found = f"a batch message takes the {slowest.stage} {mean} s (WEBHOOK_WORKER_BATCH_SIZE={size})"
    if size == "auto":
        return ok(check, found)
    if slowest.mean_s > LONG_S:
        return warn(
            check, f"{found}, more than {LONG_S:g} s", _smaller(slowest, int(size)), "slowness"
        )
    if slowest.mean_s < SHORT_S and int(size) < MAX_DOCUMENTS:
        larger = min(MAX_DOCUMENTS, 2 * int(size))
        remedy = f"a larger one: WEBHOOK_WORKER_BATCH_SIZE={larger} for ingest, or auto"
        found = f"{found}, less than {SHORT_S:g} s"
        if conditions.has_backlog:
            return warn(check, f"{found}, while documents wait", remedy, "slowness")
        return ok(check, found, f"when many documents wait, {remedy}")
    return ok(check, found)


def time_limit(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether the time expected of a batch message is well above the time that it takes."""
    wanted = TIMEOUT_FACTOR * slowest.mean_s
    found = (
        f"a batch message is expected to take up to {conditions.timeout_s:g} s; "
        f"{TIMEOUT_FACTOR:g} times the mean is {figure(wanted)} s"
    )
    if conditions.timeout_s < wanted:
        seconds = max(1, round(wanted))
        remedy = f"WEBHOOK_INDEXING_JOB_TIMEOUT={seconds}s for all services"
        return warn("batches.timeout", found, remedy, "timeouts")
    return ok("batches.timeout", found)


def next_replica(load: Load, tei: TeiLoad, conditions: Conditions) -> Finding:
    """The bottleneck, and how many documents a second one more of it would bring.

    A resource that handled x documents a second with a share u in use can handle x / u. One more
    raises that in proportion, up to the limit of the next bottleneck.
    """
    rate = max(stage.documents_per_s for stage in load.stages)
    by_use = sorted(resources(load, tei), key=lambda each: each.utilisation, reverse=True)
    busiest = by_use[0]
    shares = ", ".join(f"{resource.name} {resource.utilisation:.0%}" for resource in by_use)
    measured = f"{figure(rate)} documents a second with {shares} in use"
    if busiest.utilisation < _BUSY:
        found = f"nothing is at its limit ({measured}): another process would not help"
        return ok("replicas", found)
    now = _limit(rate, busiest)
    grown = now * (busiest.count + 1) / busiest.count
    ceiling = _limit(rate, by_use[1]) if len(by_use) > 1 else grown
    bound = f", where {by_use[1].name} is the limit" if ceiling < grown else ""
    then = figure(max(now, min(grown, ceiling)))
    gain = f"up to {then} documents a second instead of {figure(now)}{bound}"
    found, remedy = f"{busiest.name} is the bottleneck ({measured})", f"{busiest.one_more}: {gain}"
    if conditions.has_backlog:
        return warn("replicas", found, remedy, "slowness")
    return ok("replicas", found, remedy)


def resources(load: Load, tei: TeiLoad) -> list[Resource]:
    """The components that scale out, except an embedder that only waits for TEI."""
    embedding = Resource(
        name="TEI",
        count=tei.servers,
        utilisation=tei.utilisation(load.active_s),
        one_more="another server in WEBHOOK_TEI_URL",
    )
    is_busy = embedding.utilisation >= _BUSY
    stages = [
        Resource(
            name=stage.stage,
            count=stage.workers,
            utilisation=stage.utilisation,
            one_more="another process, `docker compose up --detach --scale "
            f"{stage.stage}={stage.workers + 1}`",
        )
        for stage in load.stages
        if not (is_busy and stage.stage is StageName.EMBEDDER)
    ]
    return [embedding, *stages]


def _smaller(slowest: StageLoad, size: int) -> str:
    if size == 1:
        return f"it cannot be smaller: a faster {slowest.stage}, or shorter pages"
    smaller = max(1, int(size * LONG_S / slowest.mean_s / 2))
    return f"a smaller one: WEBHOOK_WORKER_BATCH_SIZE={smaller} for ingest, or auto"


def _limit(rate: float, resource: Resource) -> float:
    """Documents a second that it can handle."""
    return rate / max(resource.utilisation, 0.001)
