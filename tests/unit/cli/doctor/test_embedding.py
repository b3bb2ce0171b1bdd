"""What is judged of a TEI server."""

from typing import Any

import msgspec
import pytest

from cli.doctor.embedding import TeiSeen, device, judge_tei, runs_on_gpu
from cli.doctor.finding import Finding, Verdict
from embedder.compatibility import Served
from shared.jobs.targets import Target
from shared.tei.client import TeiInfo

INFO = TeiInfo(
    model_id="m", model_dtype="float32", version="1.9.3", max_input_length=512,
    max_batch_tokens=16384, max_client_batch_size=32, max_concurrent_requests=512,
)  # fmt: skip
SERVED = Served(info=INFO, dimension=384, probe_ids=())
SEEN = TeiSeen(name="tei:80", served=SERVED, round_trip_ms=0.5, tokens_per_s=8000, has_metrics=True)
TARGET = Target(target="docs_1", collection="docs", generation="g", model="m", dimension=384)


def seen(*, dtype: str | None = "float32", version: str = "1.9.3", **changes: Any) -> TeiSeen:
    info = msgspec.structs.replace(INFO, model_dtype=dtype, version=version)
    return msgspec.structs.replace(
        SEEN, served=msgspec.structs.replace(SERVED, info=info), **changes
    )


def troubles(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is not Verdict.OK]


def test_a_server_of_the_collections_model_is_well() -> None:
    assert not troubles(judge_tei(SEEN, [TARGET]))


def test_a_server_of_another_model_fails() -> None:
    [finding] = troubles(
        judge_tei(SEEN, [msgspec.structs.replace(TARGET, model="another", dimension=768)])
    )
    assert (finding.check, finding.verdict) == ("tei.model", Verdict.FAIL)
    assert "another (768 dimensions)" in finding.found
    assert (finding.remedy or "").startswith("point WEBHOOK_TEI_URL to that model")


@pytest.mark.parametrize(("milliseconds", "is_slow"), [(5.0, False), (5.1, True)])
def test_a_round_trip_over_5_ms_is_slow(milliseconds: float, is_slow: bool) -> None:
    findings = troubles(judge_tei(seen(round_trip_ms=milliseconds), []))
    assert [finding.check for finding in findings] == (["tei.round_trip"] if is_slow else [])
    assert all("WEBHOOK_TEI_URL" in (finding.remedy or "") for finding in findings)


def test_a_slow_server_that_a_collection_has_of_its_own_is_left_by_reindexing() -> None:
    own = msgspec.structs.replace(TARGET, tei_url="http://own")
    [finding] = troubles(judge_tei(seen(round_trip_ms=20.0), [own]))
    assert "millstream reindex --collection docs --tei-url" in (finding.remedy or "")
    assert "WEBHOOK_TEI_URL" not in (finding.remedy or "")


def test_a_server_that_counts_requests_is_to_be_upgraded() -> None:
    [finding] = troubles(judge_tei(seen(version="1.8.2"), []))
    assert finding.remedy == "upgrade TEI to 1.9 or later"


@pytest.mark.parametrize(
    ("dtype", "tokens_per_s", "is_gpu"),
    [
        ("float32", 8_000, False),
        ("float16", 8_000, True),  # a large model on a small GPU; no CPU backend knows the type
        ("float32", 400_000, True),
        (None, 400_000, True),
        (None, 8_000, False),
    ],
)
def test_type_and_speed_tell_a_gpu(dtype: str | None, tokens_per_s: float, is_gpu: bool) -> None:
    server = seen(dtype=dtype, tokens_per_s=tokens_per_s)
    assert runs_on_gpu(server) is is_gpu
    assert ("GPU" in device(server).found) is is_gpu
    assert (device(server).remedy is None) is is_gpu
