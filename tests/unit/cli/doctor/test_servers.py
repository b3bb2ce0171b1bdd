"""What is judged of the servers, by what was seen of them."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from cli.doctor.finding import Finding, Verdict
from cli.doctor.probes import collection_seen, speed_by_metrics
from cli.doctor.servers import (
    CollectionSeen,
    IngestSeen,
    PostgresSeen,
    QdrantSeen,
    RedisSeen,
    judge_ingest,
    judge_postgres,
    judge_qdrant,
    judge_redis,
)
from cli.doctor.vantage import Vantage, unreachable
from shared.jobs.targets import Target
from shared.service.health import HealthReport

MIB = 2**20
REDIS = RedisSeen(redis_version="8.2.3", aof_enabled=1, round_trip_ms=0.2)
POSTGRES = PostgresSeen(
    server_version="17.6", fsync="on", synchronous_commit="on", is_standby=False, connections=20,
    max_connections=200, round_trip_ms=0.2,
)  # fmt: skip
TARGET = Target(target="docs_1", collection="docs", generation="g", model="m", dimension=384)
FILLED = {"docs_1"}
COLLECTION = CollectionSeen(target=TARGET, exists=True, dimension=384, generation="g")
INGEST = IngestSeen(
    url="http://ingest:50108",
    health=HealthReport(
        status="healthy", services={"redis": "healthy"}, timestamp=dt.datetime.now(dt.UTC)
    ),
    secret_status=200,
    round_trip_ms=1.0,
)


def troubles(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is not Verdict.OK]


def test_servers_that_are_well_have_no_findings_to_act_on() -> None:
    qdrant = QdrantSeen(version="1.19.1", round_trip_ms=0.2, collections=[COLLECTION])
    for findings in (
        judge_redis(REDIS),
        judge_postgres(POSTGRES),
        judge_qdrant(qdrant, FILLED),
        judge_ingest(INGEST),
    ):
        assert findings
        assert not troubles(findings)


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "remedy"),
    [
        (
            {"refusal": "it evicts: set noeviction", "maxmemory_policy": "x"},
            "redis.policy",
            Verdict.FAIL,
            "set noeviction",
        ),
        ({"refusal": "6.2 is too old: upgrade it"}, "redis.version", Verdict.FAIL, "upgrade it"),
        ({"aof_enabled": 0}, "redis.persistence", Verdict.WARN, "CONFIG SET appendonly yes"),
        ({"aof_last_write_status": "err"}, "redis.persistence", Verdict.FAIL, "make room"),
        (
            {"used_memory": 85 * MIB, "maxmemory": 100 * MIB},
            "redis.memory",
            Verdict.WARN,
            "raise maxmemory",
        ),
        (
            {"used_memory": 100 * MIB, "maxmemory": 100 * MIB},
            "redis.memory",
            Verdict.FAIL,
            "WEBHOOK_STREAM_BYTES",
        ),
        ({"round_trip_ms": 5.1}, "redis.round_trip", Verdict.WARN, "WEBHOOK_REDIS_URL"),
        ({"role": "slave"}, "redis.role", Verdict.FAIL, "the primary"),
    ],
)
def test_what_is_wrong_with_redis(
    changes: dict[str, Any], check: str, verdict: Verdict, remedy: str
) -> None:
    [finding] = troubles(judge_redis(msgspec.structs.replace(REDIS, **changes)))
    assert (finding.check, finding.verdict) == (check, verdict)
    assert remedy in (finding.remedy or "")


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "remedy"),
    [
        (
            {"refusal": "schema 1: run `millstream migrate`"},
            "postgres.schema",
            Verdict.FAIL,
            "`millstream migrate`",
        ),
        ({"fsync": "off"}, "postgres.durability", Verdict.FAIL, "ALTER SYSTEM SET fsync = on;"),
        (
            {"synchronous_commit": "off"},
            "postgres.durability",
            Verdict.FAIL,
            "synchronous_commit = on; SELECT",
        ),
        ({"connections": 190}, "postgres.connections", Verdict.WARN, "max_connections"),
        ({"round_trip_ms": 40.0}, "postgres.round_trip", Verdict.WARN, "WEBHOOK_DATABASE_URL"),
        ({"is_standby": True}, "postgres.role", Verdict.FAIL, "the primary"),
        ({"oldest_snapshot_s": 3600.0}, "postgres.snapshot", Verdict.WARN, "pg_basebackup"),
    ],
)
def test_what_is_wrong_with_postgres(
    changes: dict[str, Any], check: str, verdict: Verdict, remedy: str
) -> None:
    [finding] = troubles(judge_postgres(msgspec.structs.replace(POSTGRES, **changes)))
    assert (finding.check, finding.verdict) == (check, verdict)
    assert remedy in (finding.remedy or "")


@pytest.mark.parametrize(
    ("changes", "found", "remedy"),
    [
        ({"exists": False}, "docs_1 is missing", "run an indexer"),
        ({"generation": "another"}, "not the collection that Postgres knows", "drop docs_1"),
        ({"dimension": 768}, "768 dimensions, Postgres says 384", "drop docs_1"),
        ({"status": "red"}, "docs_1 is red", "disk"),
    ],
)
def test_what_is_wrong_with_a_collection(changes: dict[str, Any], found: str, remedy: str) -> None:
    seen = QdrantSeen(
        version="1.19.1",
        round_trip_ms=0.2,
        collections=[msgspec.structs.replace(COLLECTION, **changes)],
    )
    [finding] = troubles(judge_qdrant(seen, FILLED))
    assert finding.verdict is Verdict.FAIL
    assert found in finding.found
    assert remedy in (finding.remedy or "")


def test_a_collection_without_documents_need_not_be_there() -> None:
    missing = msgspec.structs.replace(COLLECTION, exists=False)
    assert not troubles(
        judge_qdrant(
            QdrantSeen(version="1.20.0-edge", round_trip_ms=0.2, collections=[missing]), filled=()
        )
    )


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.15.5", Verdict.FAIL), ("1.16.3", Verdict.WARN), ("unknown", Verdict.WARN)],
)
def test_a_qdrant_that_is_old_or_unknown_is_to_be_upgraded(version: str, verdict: Verdict) -> None:
    [finding] = troubles(
        judge_qdrant(QdrantSeen(version=version, round_trip_ms=0.2, collections=[]), filled=())
    )
    assert (finding.check, finding.verdict) == ("qdrant.version", verdict)
    assert finding.remedy == "upgrade it to 1.19 or later"


def test_qdrant_may_be_farther_away_than_the_others() -> None:
    assert not troubles(
        judge_qdrant(QdrantSeen(version="1.19.1", round_trip_ms=15.0, collections=[]), filled=())
    )
    assert troubles(
        judge_qdrant(QdrantSeen(version="1.19.1", round_trip_ms=25.0, collections=[]), filled=())
    )


@pytest.mark.parametrize(("milliseconds", "is_slow"), [(None, False), (20.0, False), (44.0, True)])
def test_a_qdrant_whose_reads_wait_for_an_ack_is_slow(
    milliseconds: float | None, is_slow: bool
) -> None:
    seen = QdrantSeen(version="1.19.1", round_trip_ms=1.0, read_ms=milliseconds, collections=[])
    assert [each.check for each in troubles(judge_qdrant(seen, filled=()))] == [
        "qdrant.read_round_trip"
    ] * is_slow


def test_ingest_that_refuses_the_secret_or_misses_a_server_fails() -> None:
    [secret] = troubles(judge_ingest(msgspec.structs.replace(INGEST, secret_status=401)))
    assert "WEBHOOK_API_SECRET" in (secret.remedy or "")
    health = msgspec.structs.replace(
        INGEST.health, services={"tei": "unhealthy: no answer", "redis": "healthy"}
    )
    [tei] = troubles(judge_ingest(msgspec.structs.replace(INGEST, health=health)))
    assert tei.found == "ingest at http://ingest:50108 reports tei unhealthy: no answer"
    assert "WEBHOOK_TEI_URL" in (tei.remedy or "")


def test_a_collection_is_read_from_qdrants_answer() -> None:
    config = {"params": {"vectors": {"dense": {"size": 384}}}, "metadata": {"generation": "g"}}
    seen = collection_seen(TARGET, {"result": {"status": "green", "config": config}})
    assert seen == COLLECTION
    missing = collection_seen(TARGET, {"status": {"error": "Not found"}, "time": 0})
    assert not missing.exists


def test_a_collection_that_others_made_has_no_generation() -> None:
    result = {"status": "green", "config": {"params": {}, "metadata": None}}
    seen = collection_seen(TARGET, {"result": result})
    assert (seen.dimension, seen.generation) == (None, None)


def test_speed_is_tokens_over_seconds_of_inference() -> None:
    page = (
        "# TYPE te_batch_next_tokens histogram\n"
        'te_batch_next_tokens_bucket{le="+Inf"} 4\n'
        "te_batch_next_tokens_sum 8000\nte_batch_next_tokens_count 4\n"
        "# TYPE te_batch_inference_duration histogram\n"
        'te_batch_inference_duration_bucket{le="+Inf"} 4\nte_batch_inference_duration_sum 0.5\n'
        "te_batch_inference_duration_count 4\n"
    )
    assert speed_by_metrics(page) == 16_000
    assert speed_by_metrics("te_queue_size 0\n") is None


@pytest.mark.parametrize(
    ("reason", "found", "remedy"),
    [
        ("refused (127.0.0.1)", "refused (127.0.0.1)", "start it, or correct WEBHOOK_TEI_URL"),
        ("HTTP 401 (check WEBHOOK_TEI_API_KEY)", "HTTP 401", "correct WEBHOOK_TEI_API_KEY"),
    ],
)
def test_a_server_that_does_not_answer_is_to_be_started_or_its_setting_corrected(
    reason: str, found: str, remedy: str
) -> None:
    finding = unreachable("tei", "tei:80", reason)
    assert (finding.check, finding.verdict, finding.remedy) == (
        "tei.reachable",
        Verdict.FAIL,
        remedy,
    )
    assert finding.found.endswith(f": {found}")


def test_a_server_that_only_ingest_reaches_is_healthy_but_not_examined() -> None:
    vantage = Vantage("http://ingest:50108", {"redis": "healthy", "qdrant": "unhealthy: refused"})
    redis = vantage.unreachable("redis", "redis://localhost:6379/0", "refused")
    assert (redis.verdict, redis.remedy) == (Verdict.OK, None)
    assert "according to ingest (http://ingest:50108/health)" in redis.found
    assert "redis://localhost:6379/0 does not answer from here (refused)" in redis.found
    qdrant = vantage.unreachable("qdrant", "http://localhost:6333", "refused")
    assert qdrant.verdict is Verdict.FAIL
    assert "http://localhost:6333" in qdrant.found
    [finding] = vantage.findings()
    assert (finding.check, finding.verdict) == ("doctor.reach", Verdict.WARN)
    assert finding.found.endswith(": redis")
    assert "docker compose exec ingest millstream doctor" in (finding.remedy or "")
    assert "WEBHOOK_REDIS_URL" in (finding.remedy or "")


def test_without_ingest_a_server_that_does_not_answer_fails() -> None:
    vantage = Vantage("http://ingest:50108", None)
    assert vantage.unreachable("redis", "redis://r", "refused").verdict is Verdict.FAIL
    assert not vantage.ingest_answers
    assert vantage.findings() == []
