"""What measured times say about limits, sizes and replicas."""

import datetime as dt

import pytest

from cli.doctor.advice import (
    Conditions,
    TeiLoad,
    batch_size,
    failure_rate,
    next_replica,
    time_limit,
)
from cli.doctor.finding import Verdict, figure
from cli.doctor.load import Load, StageLoad
from shared.pipeline.stages import StageName

CHUNKER, EMBEDDER, INDEXER = StageName
NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
NO_TEI = TeiLoad(servers=1, is_on_gpu=False, request_s=0.0)


def stage(
    name: StageName = EMBEDDER, *, mean_s: float = 2.0, utilisation: float = 0.5, workers: int = 1
) -> StageLoad:
    return StageLoad(
        stage=name,
        workers=workers,
        messages=10,
        mean_s=mean_s,
        documents_per_s=20.0,
        utilisation=utilisation,
    )


def load(*stages: StageLoad) -> Load:
    return Load(start=NOW, end=NOW, active_s=100.0, stages=list(stages))


def conditions(
    size: str = "4", timeout_s: float = 600.0, *, has_backlog: bool = False
) -> Conditions:
    return Conditions(batch_size=size, timeout_s=timeout_s, has_backlog=has_backlog)


@pytest.mark.parametrize(
    ("total", "failed", "verdict"),
    [
        (0, 0, Verdict.OK),
        (100, 4, Verdict.OK),
        (100, 5, Verdict.WARN),
        (100, 6, Verdict.WARN),
        (100, 10, Verdict.WARN),
        (100, 11, Verdict.FAIL),
    ],
)
def test_5_percent_failed_is_a_warning_and_over_10_a_stop(
    total: int, failed: int, verdict: Verdict
) -> None:
    finding = failure_rate(total, failed)
    assert finding.verdict is verdict
    assert ("stop" in finding.found) is (verdict is Verdict.FAIL)
    assert ("millstream dead list" in (finding.remedy or "")) is (verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("mean_s", "size", "smaller"),
    [(3.1, "4", "WEBHOOK_WORKER_BATCH_SIZE=1"), (8.0, "16", "WEBHOOK_WORKER_BATCH_SIZE=3")],
)
def test_a_batch_that_takes_too_long_should_be_smaller(
    mean_s: float, size: str, smaller: str
) -> None:
    finding = batch_size(stage(mean_s=mean_s), conditions(size))
    assert finding.verdict is Verdict.WARN
    assert smaller in (finding.remedy or "")


def test_a_batch_of_one_document_cannot_be_smaller() -> None:
    assert "cannot be smaller" in (batch_size(stage(mean_s=9.0), conditions("1")).remedy or "")


def test_a_batch_under_1_s_should_be_larger_and_is_a_fault_while_documents_wait() -> None:
    calm, busy = (
        batch_size(stage(mean_s=0.9), conditions(has_backlog=waits)) for waits in (False, True)
    )
    assert (calm.verdict, busy.verdict) == (Verdict.OK, Verdict.WARN)
    assert all("WEBHOOK_WORKER_BATCH_SIZE=8" in (finding.remedy or "") for finding in (calm, busy))


@pytest.mark.parametrize(
    ("mean_s", "size"), [(1.0, "4"), (3.0, "4"), (0.5, "32"), (9.0, "auto"), (0.1, "auto")]
)
def test_a_batch_between_or_of_automatic_size_is_well(mean_s: float, size: str) -> None:
    finding = batch_size(stage(mean_s=mean_s), conditions(size, has_backlog=True))
    assert (finding.verdict, finding.remedy) == (Verdict.OK, None)


@pytest.mark.parametrize(("timeout_s", "verdict"), [(60.0, Verdict.OK), (59.0, Verdict.WARN)])
def test_a_time_limit_is_three_times_the_mean_at_least(timeout_s: float, verdict: Verdict) -> None:
    finding = time_limit(stage(mean_s=20.0), conditions(timeout_s=timeout_s))
    assert finding.verdict is verdict
    assert "60 s" in finding.found
    assert (finding.remedy or "").startswith(
        "WEBHOOK_INDEXING_JOB_TIMEOUT=60s" if verdict is Verdict.WARN else ""
    )


def test_stages_that_wait_for_work_need_no_replica() -> None:
    finding = next_replica(
        load(stage(utilisation=0.59), stage(INDEXER, utilisation=0.1)), NO_TEI, conditions()
    )
    assert (finding.verdict, finding.remedy) == (Verdict.OK, None)
    assert "embedder 59%" in finding.found


def test_the_next_replica_brings_its_share_up_to_the_next_limit() -> None:
    """20 documents a second: the chunker can do 20, two of it 40, and the indexer 25."""
    stages = load(
        stage(CHUNKER, utilisation=1.0),
        stage(EMBEDDER, utilisation=0.2),
        stage(INDEXER, utilisation=0.8),
    )
    finding = next_replica(stages, NO_TEI, conditions(has_backlog=True))
    assert finding.verdict is Verdict.WARN
    assert finding.found.startswith("chunker is the bottleneck")
    assert "--scale chunker=2`: up to 25 documents a second instead of 20, where indexer" in (
        finding.remedy or ""
    )


def test_the_third_process_brings_half_as_much_again() -> None:
    stages = load(stage(CHUNKER, utilisation=1.0, workers=2), stage(INDEXER, utilisation=0.1))
    assert (next_replica(stages, NO_TEI, conditions()).remedy or "").endswith(
        "up to 30 documents a second instead of 20"
    )


def test_an_embedder_that_waits_for_a_tei_on_a_cpu_needs_another_tei() -> None:
    stages = load(stage(EMBEDDER, utilisation=1.0), stage(INDEXER, utilisation=0.25))
    finding = next_replica(
        stages, TeiLoad(servers=1, is_on_gpu=False, request_s=900.0), conditions()
    )
    assert finding.found.startswith("TEI is the bottleneck")
    assert "another server in WEBHOOK_TEI_URL: up to 40 documents a second" in (
        finding.remedy or ""
    )


def test_a_gpu_takes_several_requests_at_once() -> None:
    stages = load(stage(EMBEDDER, utilisation=0.9), stage(INDEXER, utilisation=0.25))
    finding = next_replica(
        stages, TeiLoad(servers=1, is_on_gpu=True, request_s=400.0), conditions()
    )
    assert finding.found.startswith("embedder is the bottleneck")
    assert "--scale embedder=2" in (finding.remedy or "")


def test_a_stage_alone_grows_without_another_limit() -> None:
    """Documents that the chunker ends are in no other stage, and TEI is not asked."""
    finding = next_replica(load(stage(CHUNKER, utilisation=0.8)), NO_TEI, conditions())
    assert "up to 50 documents a second instead of 25" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0234, "0.023"), (4.56, "4.6"), (12.6, "13"), (1234.5, "1234")]
)
def test_figures_are_for_people(value: float, text: str) -> None:
    assert figure(value) == text
