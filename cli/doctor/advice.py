"""What measured times say: failure rate, batch size, time limit, and where another replica would help. No I/O."""

import msgspec

from cli.doctor.finding import Finding, Findings, fail, figure, ok, warn
from cli.doctor.load import Load, StageLoad
from ingest.dispatch.sizing import LONG_S, MAX_DOCUMENTS, SHORT_S
from shared.pipeline.stages import StageName

WARN_FAILED, STOP_FAILED = 0.05, 0.10  # shares of documents
TIMEOUT_FACTOR = 3.0  # a time limit of so many means cuts off what hangs, and nothing that only takes longer
_BUSY = 0.6  # share in use; below it a stage waits for work, not the work for it
_REQUESTS_OF_A_GPU = 8  # at once, up to which an L4 gained; a CPU does one after the other


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline is set to, and what waits for it."""

    batch_size: str  # a number, or `auto`
    timeout_s: float  # WEBHOOK_INDEXING_JOB_TIMEOUT
    has_backlog: bool  # documents wait in Postgres


class TeiLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The TEI servers while the load was measured."""

    servers: int
    is_on_gpu: bool
    request_s: float  # of all requests together

    def utilisation(self, active_s: float) -> float:
        """The share of what they can do at once, 0 to 1."""
        at_once = self.servers * (_REQUESTS_OF_A_GPU if self.is_on_gpu else 1)
        return min(1.0, self.request_s / (active_s * at_once))


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What there may be more of."""

    name: str
    count: int
    utilisation: float
    one_more: str  # how to get another one


def measured(load: Load, tei: TeiLoad, conditions: Conditions) -> Findings:
    """What the times of the stages say."""
    slowest = max(load.stages, key=lambda stage: stage.mean_s)
    return [batch_size(slowest, conditions), time_limit(slowest, conditions), next_replica(load, tei, conditions)]


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
    if share >= WARN_FAILED:
        return warn(check, found, look, "partial-failures")
    return ok(check, found)


def batch_size(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether a batch message is short enough to be done again after a crash, and long enough to be cheap."""
    check, size = "batches.size", conditions.batch_size
    found = f"a batch message takes the {slowest.stage} {figure(slowest.mean_s)} s (WEBHOOK_WORKER_BATCH_SIZE={size})"
    if size == "auto":
        return ok(check, found)
    if slowest.mean_s > LONG_S:
        if int(size) == 1:
            remedy = f"it cannot be smaller: a faster {slowest.stage}, or shorter pages"
        else:
            smaller = max(1, int(int(size) * LONG_S / slowest.mean_s / 2))
            remedy = f"a smaller one: WEBHOOK_WORKER_BATCH_SIZE={smaller} for ingest, or auto"
        return warn(check, f"{found}, more than {LONG_S:g} s", remedy, "slowness")
    if slowest.mean_s < SHORT_S and int(size) < MAX_DOCUMENTS:
        remedy = f"a larger one: WEBHOOK_WORKER_BATCH_SIZE={min(MAX_DOCUMENTS, 2 * int(size))} for ingest, or auto"
        if conditions.has_backlog:
            return warn(check, f"{found}, less than {SHORT_S:g} s, while documents wait", remedy, "slowness")
        return ok(check, f"{found}, less than {SHORT_S:g} s", f"when many documents wait, {remedy}")
    return ok(check, found)


def time_limit(slowest: StageLoad, conditions: Conditions) -> Finding:
    """Whether the time limit of a batch message is well above what it takes."""
    wanted = TIMEOUT_FACTOR * slowest.mean_s
    found = (
        f"a batch message may take {conditions.timeout_s:g} s; {TIMEOUT_FACTOR:g} times the mean is {figure(wanted)} s"
    )
    if conditions.timeout_s < wanted:
        remedy = f"WEBHOOK_INDEXING_JOB_TIMEOUT={max(1, round(wanted))}s for all services"
        return warn("batches.timeout", found, remedy, "timeouts")
    return ok("batches.timeout", found)


def next_replica(load: Load, tei: TeiLoad, conditions: Conditions) -> Finding:
    """What the bottleneck is, and how many documents a second one more of it would bring.

    What did x documents a second with a share u of it taken can do x / u. One more raises that in proportion, up to
    the limit of the next bottleneck.
    """
    rate = max(stage.documents_per_s for stage in load.stages)
    by_use = sorted(resources(load, tei), key=lambda resource: resource.utilisation, reverse=True)
    busiest = by_use[0]
    shares = ", ".join(f"{resource.name} {resource.utilisation:.0%}" for resource in by_use)
    measured = f"{figure(rate)} documents a second with {shares} in use"
    if busiest.utilisation < _BUSY:
        return ok("replicas", f"nothing is at its limit ({measured}): another process would bring nothing")
    now = _limit(rate, busiest)
    grown = now * (busiest.count + 1) / busiest.count
    ceiling = _limit(rate, by_use[1]) if len(by_use) > 1 else grown
    bound = f", where {by_use[1].name} is the limit" if ceiling < grown else ""
    gain = f"up to {figure(max(now, min(grown, ceiling)))} documents a second instead of {figure(now)}{bound}"
    found, remedy = f"{busiest.name} is the bottleneck ({measured})", f"{busiest.one_more}: {gain}"
    return warn("replicas", found, remedy, "slowness") if conditions.has_backlog else ok("replicas", found, remedy)


def resources(load: Load, tei: TeiLoad) -> list[Resource]:
    """All of which there may be more. An embedder is none of them where it only waits for TEI."""
    embedding = Resource(
        name="TEI",
        count=tei.servers,
        utilisation=tei.utilisation(load.active_s),
        one_more="another server in WEBHOOK_TEI_URL",
    )
    is_waited_for = embedding.utilisation >= _BUSY
    return [
        embedding,
        *(
            Resource(
                name=stage.stage,
                count=stage.workers,
                utilisation=stage.utilisation,
                one_more=f"another process, `docker compose up --detach --scale {stage.stage}={stage.workers + 1}`",
            )
            for stage in load.stages
            if not (is_waited_for and stage.stage is StageName.EMBEDDER)
        ),
    ]


def _limit(rate: float, resource: Resource) -> float:
    """Documents a second that it can do."""
    return rate / max(resource.utilisation, 0.001)
