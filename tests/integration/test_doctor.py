"""`millstream doctor` on real servers: nothing to do in health, and each planted fault with its
remedy, alone.
"""

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

import pytest

from cli.doctor.examination import examine
from cli.doctor.finding import Finding, Verdict, worst
from shared.pipeline.stages import OWNER, StageName
from shared.service.settings import QdrantSettings, Secret
from tests.support.documented import DOCS
from tests.support.examined import (
    TARGET,
    Examined,
    end_documents,
    examined,
    leave_entry,
    work_through,
)
from tests.support.local_stack import bare_environ
from tests.support.pipeline import MILLSTREAM, Pipeline
from tests.support.qdrant_process import running_qdrant
from tests.support.qdrant_recorder import recording
from tests.support.refusing_redis import refusing_redis
from tests.support.stage_harness import Servers, accept_documents
from tests.support.tei_stand_in import StandInSettings, TeiStandIn
from tests.torture.proxy import Proxy

pytestmark = pytest.mark.timeout(120)

on_shared_servers = pytest.mark.asyncio(loop_scope="session")

NOBODY = "http://127.0.0.1:9"

Fault = Callable[[Examined], contextlib.AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    with running_qdrant(tmp_path_factory.mktemp("qdrant") / "data") as settings:
        yield settings


async def troubles(world: Examined, slow: str | None = None) -> dict[str, Finding]:
    """What the doctor would have changed, by check. On a busy machine any server may be slow: only
    `slow` counts.
    """
    examination = await examine(world.environ)
    assert examination.verdict is worst(examination.findings)
    found = {each.check: each for each in examination.findings if each.verdict is not Verdict.OK}
    return {
        check: each
        for check, each in found.items()
        if check == slow or not check.endswith("round_trip")
    }


def setting(name: str, value: str) -> Fault:
    """A setting that is wrong."""

    @contextlib.asynccontextmanager
    async def fault(world: Examined) -> AsyncIterator[None]:
        world.environ[name] = value
        yield

    return fault


def redis_setting(name: str, wrong: str, right: str) -> Fault:
    @contextlib.asynccontextmanager
    async def fault(world: Examined) -> AsyncIterator[None]:
        await world.servers.redis.config_set(name, wrong)
        try:
            yield
        finally:
            await world.servers.redis.config_set(name, right)

    return fault


@contextlib.asynccontextmanager
async def foreign_redis(world: Examined) -> AsyncIterator[None]:
    await world.servers.redis.set(OWNER, "2026-01-01T00:00:00.000000Z")
    try:
        yield
    finally:
        await world.servers.redis.delete(OWNER)


@contextlib.asynccontextmanager
async def protected_redis(world: Examined) -> AsyncIterator[None]:
    async with refusing_redis() as url:
        world.environ["WEBHOOK_REDIS_URL"] = url
        yield


@contextlib.asynccontextmanager
async def tei_of_another_model(world: Examined) -> AsyncIterator[None]:
    async with TeiStandIn(StandInSettings(dimension=8)) as tei:
        world.environ["WEBHOOK_TEI_URL"] = tei.url
        yield


@contextlib.asynccontextmanager
async def query_tei_of_another_model(world: Examined) -> AsyncIterator[None]:
    async with TeiStandIn(StandInSettings(model_id="another")) as tei:
        world.environ["WEBHOOK_SEARCH_TEI_URL"] = tei.url
        yield


@contextlib.asynccontextmanager
async def tei_far_away(world: Examined) -> AsyncIterator[None]:
    address = urlsplit(world.environ["WEBHOOK_TEI_URL"])
    assert address.port
    proxy = Proxy("127.0.0.1", address.port, seed=1)
    await proxy.start()
    await proxy.delay(0.005)  # either way
    world.environ["WEBHOOK_TEI_URL"] = f"http://127.0.0.1:{proxy.port}"
    try:
        yield
    finally:
        await proxy.stop()


@contextlib.asynccontextmanager
async def own_tei_not_allowed(world: Examined) -> AsyncIterator[None]:
    await world.servers.pool.execute("UPDATE webhook.targets SET tei_url = $1", NOBODY)
    yield


@contextlib.asynccontextmanager
async def own_tokenizer_not_allowed(world: Examined) -> AsyncIterator[None]:
    await world.servers.pool.execute("UPDATE webhook.targets SET tokenizer = '/dev/zero'")
    yield


@contextlib.asynccontextmanager
async def own_tei_down(world: Examined) -> AsyncIterator[None]:
    world.environ["WEBHOOK_TEI_ALLOWED"] = urlsplit(NOBODY).netloc
    await world.servers.pool.execute("UPDATE webhook.targets SET tei_url = $1", NOBODY)
    yield


@contextlib.asynccontextmanager
async def own_tei_of_another_model(world: Examined) -> AsyncIterator[None]:
    async with TeiStandIn(StandInSettings(dimension=8)) as tei:
        world.environ["WEBHOOK_TEI_ALLOWED"] = "127.0.0.1"
        await world.servers.pool.execute("UPDATE webhook.targets SET tei_url = $1", tei.url)
        yield


@contextlib.asynccontextmanager
async def newer_schema(world: Examined) -> AsyncIterator[None]:
    await world.servers.pool.execute(
        "INSERT INTO webhook.schema_migrations (version, name) VALUES (9999, 'later')"
    )
    try:
        yield
    finally:
        await world.servers.pool.execute(
            "DELETE FROM webhook.schema_migrations WHERE version = 9999"
        )


@contextlib.asynccontextmanager
async def lost_collection(world: Examined) -> AsyncIterator[None]:
    await world.qdrant.delete_collection(TARGET)
    yield


@contextlib.asynccontextmanager
async def foreign_collection(world: Examined) -> AsyncIterator[None]:
    await world.servers.pool.execute("UPDATE webhook.targets SET generation = gen_random_uuid()")
    yield


@contextlib.asynccontextmanager
async def no_indexer(world: Examined) -> AsyncIterator[None]:
    for stream in StageName.INDEXER.streams:
        await world.servers.redis.xgroup_destroy(stream, StageName.INDEXER)
    yield


@contextlib.asynccontextmanager
async def dead_worker(world: Examined) -> AsyncIterator[None]:
    await leave_entry(world.servers, idle_ms=60_000)
    yield


@contextlib.asynccontextmanager
async def poison(world: Examined) -> AsyncIterator[None]:
    await leave_entry(world.servers, idle_ms=0, deliveries=3)
    yield


@contextlib.asynccontextmanager
async def no_dispatcher(world: Examined) -> AsyncIterator[None]:
    await accept_documents(world.servers, 3)
    await world.servers.pool.execute(
        "UPDATE webhook.job_items SET due_at = now() - interval '1 minute'"
    )
    yield


@contextlib.asynccontextmanager
async def failing_documents(world: Examined) -> AsyncIterator[None]:
    await end_documents(world.servers, succeeded=17, failed=3)
    yield


@contextlib.asynccontextmanager
async def slow_batches(world: Examined) -> AsyncIterator[None]:
    await work_through(world.servers, seconds=8.0)
    yield


@contextlib.asynccontextmanager
async def short_time_limit(world: Examined) -> AsyncIterator[None]:
    await work_through(world.servers, seconds=2.5)
    world.environ |= {"WEBHOOK_INDEXING_JOB_TIMEOUT": "5s", "WEBHOOK_DOCUMENT_TIMEOUT": "4s"}
    yield


@contextlib.asynccontextmanager
async def slow_qdrant_reads(world: Examined) -> AsyncIterator[None]:
    key = Secret(world.environ["WEBHOOK_QDRANT_API_KEY"])
    settings = QdrantSettings(qdrant_url=world.environ["WEBHOOK_QDRANT_URL"], qdrant_api_key=key)
    async with recording(settings) as (recorder, through):
        recorder.delays["scroll"] = 0.03  # and `/` answers as fast as ever
        world.environ["WEBHOOK_QDRANT_URL"] = through.qdrant_url
        yield


FAULTS: list[tuple[str, Fault, str, Verdict, str]] = [
    ("a name misspelt", setting("WEBHOOK_TEI_URLS", "x"), "settings.name", Verdict.FAIL, "to WEBHOOK_TEI_URL"),
    ("a weak secret", setting("WEBHOOK_SECRET", "x"), "settings.secrets", Verdict.FAIL, "openssl rand -hex 32"),
    ("ingest down", setting("MILLSTREAM_URL", NOBODY), "ingest.reachable", Verdict.FAIL, "MILLSTREAM_URL"),
    ("another secret", setting("WEBHOOK_API_SECRET", "x" * 32), "ingest.secret", Verdict.FAIL, "WEBHOOK_API_SECRET"),
    ("Redis down", setting("WEBHOOK_REDIS_URL", "redis://127.0.0.1:9"), "redis.reachable", Verdict.FAIL, "start it"),
    ("protected Redis", protected_redis, "redis.reachable", Verdict.FAIL, "set a password (`requirepass` there"),
    ("eviction", redis_setting("maxmemory-policy", "allkeys-lru", "noeviction"), "redis.policy", Verdict.FAIL,
     "`redis-cli CONFIG SET maxmemory-policy noeviction`"),
    ("no log", redis_setting("appendonly", "no", "yes"), "redis.persistence", Verdict.WARN, "SET appendonly yes"),
    ("a Redis of others", foreign_redis, "redis.owner", Verdict.FAIL, "point WEBHOOK_REDIS_URL to another Redis"),
    ("little memory", redis_setting("maxmemory", "1", "0"), "redis.memory", Verdict.FAIL, "raise maxmemory"),
    ("Postgres down", setting("WEBHOOK_DATABASE_URL", "postgresql://127.0.0.1:9/x"), "postgres.reachable",
     Verdict.FAIL, "WEBHOOK_DATABASE_URL"),
    ("newer schema", newer_schema, "postgres.schema", Verdict.FAIL, "upgrade millstream"),
    ("TEI down", setting("WEBHOOK_TEI_URL", NOBODY), "tei.reachable", Verdict.FAIL, "WEBHOOK_TEI_URL"),
    ("another model", tei_of_another_model, "tei.model", Verdict.FAIL, "point WEBHOOK_TEI_URL to that model"),
    ("another model for queries", query_tei_of_another_model, "tei.query_model", Verdict.FAIL,
     "point WEBHOOK_SEARCH_TEI_URL to servers of stand-in"),
    ("TEI of queries down", setting("WEBHOOK_SEARCH_TEI_URL", NOBODY), "tei.reachable", Verdict.FAIL,
     "WEBHOOK_SEARCH_TEI_URL"),
    ("a collection's TEI down", own_tei_down, "tei.reachable", Verdict.FAIL, "millstream reindex"),
    ("a collection's forbidden TEI", own_tei_not_allowed, "collection.allowed", Verdict.FAIL, "to WEBHOOK_TEI_ALLOWED"),
    ("a collection's forbidden tokenizer", own_tokenizer_not_allowed, "collection.allowed", Verdict.FAIL,
     "set WEBHOOK_TOKENIZER_DIRECTORY"),
    ("a collection's other model", own_tei_of_another_model, "tei.model", Verdict.FAIL, "serve that model again at"),
    ("long chunks", setting("WEBHOOK_MAX_CHUNK_TOKENS", "1000"), "tei.model", Verdict.FAIL, "to 512 or less"),
    ("far TEI", tei_far_away, "tei.round_trip", Verdict.WARN, "in the same network"),
    ("Qdrant down", setting("WEBHOOK_QDRANT_URL", NOBODY), "qdrant.reachable", Verdict.FAIL, "WEBHOOK_QDRANT_URL"),
    ("wrong key", setting("WEBHOOK_QDRANT_API_KEY", "x"), "qdrant.reachable", Verdict.FAIL, "WEBHOOK_QDRANT_API_KEY"),
    ("slow reads", slow_qdrant_reads, "qdrant.read_round_trip", Verdict.WARN, "compress or buffer"),
    ("lost collection", lost_collection, "qdrant.collection", Verdict.FAIL, "run an indexer"),
    ("foreign collection", foreign_collection, "qdrant.collection", Verdict.FAIL, f"drop {TARGET}"),
    ("no indexer", no_indexer, "work.workers", Verdict.FAIL, "`millstream serve indexer`"),
    ("dead worker", dead_worker, "work.abandoned", Verdict.WARN, "another worker takes them over"),
    ("poison", poison, "work.redeliveries", Verdict.WARN, "millstream streams pending embedder"),
    ("no dispatcher", no_dispatcher, "work.dispatch", Verdict.FAIL, "`millstream serve ingest`"),
    ("failing documents", failing_documents, "documents.failed", Verdict.FAIL, "millstream dead list --since 1h"),
    ("slow batches", slow_batches, "batches.size", Verdict.WARN, "WEBHOOK_WORKER_BATCH_SIZE=1"),
    ("a short time limit", short_time_limit, "batches.timeout", Verdict.WARN, "WEBHOOK_INDEXING_JOB_TIMEOUT=8s"),
]  # fmt: skip


@on_shared_servers
async def test_in_health_there_is_nothing_to_change(
    servers: Servers, qdrant: QdrantSettings
) -> None:
    await servers.redis.flushall()
    async with examined(servers, qdrant) as world:
        assert await troubles(world) == {}


@on_shared_servers
@pytest.mark.parametrize(
    ("fault", "check", "verdict", "remedy"),
    [row[1:] for row in FAULTS],
    ids=[row[0] for row in FAULTS],
)
async def test_a_planted_fault_is_found_with_its_remedy(
    servers: Servers,
    qdrant: QdrantSettings,
    fault: Fault,
    check: str,
    verdict: Verdict,
    remedy: str,
) -> None:
    async with examined(servers, qdrant) as world, fault(world):
        found = await troubles(world, slow=check)
    assert found.keys() == {check}
    assert found[check].verdict is verdict
    assert remedy in (found[check].remedy or "")
    if found[check].runbook:
        assert (DOCS / "runbooks" / f"{found[check].runbook}.md").exists()


@on_shared_servers
async def test_a_collections_unreadable_tokenizer_hides_no_other_server(
    servers: Servers, qdrant: QdrantSettings
) -> None:
    async with examined(servers, qdrant) as world:
        await servers.pool.execute(
            "UPDATE webhook.targets SET tei_url = $1, tokenizer = '/nowhere/tokenizer.json'",
            world.environ["WEBHOOK_TEI_URL"],
        )
        world.environ["WEBHOOK_TEI_ALLOWED"] = urlsplit(world.environ["WEBHOOK_TEI_URL"]).netloc
        world.environ["WEBHOOK_TOKENIZER_DIRECTORY"] = "/nowhere"
        world.environ["WEBHOOK_TEI_URL"] = NOBODY
        found = await troubles(world)
    assert found.keys() == {"settings.tokenizer", "tei.reachable"}
    assert "that of the collection" in (found["settings.tokenizer"].remedy or "")


def test_a_running_pipeline_is_examined_from_its_stack_file(pipeline: Pipeline) -> None:
    pipeline.finished(
        pipeline.index(
            [{"url": f"https://example.com/{n}", "markdown": f"Page {n}."} for n in range(8)]
        )
    )
    done = pipeline.cli("doctor", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warn": 5, "fail": 1}[answer["verdict"]]
    failed = {each["check"] for each in answer["findings"] if each["verdict"] == "fail"}
    assert failed <= {"documents.failed"}  # other tests have documents fail
    assert {load["stage"] for load in answer["stages"]} == set(StageName)
    assert all(0 < load["utilisation"] <= 1 for load in answer["stages"])


def test_outside_the_containers_the_doctor_goes_by_what_ingest_reports(pipeline: Pipeline) -> None:
    """Only ingest's address and secret are known there; the servers' names and ports do not exist."""
    known = {name: pipeline.env[name] for name in ("MILLSTREAM_URL", "WEBHOOK_API_SECRET")}
    urls = {
        "WEBHOOK_REDIS_URL": "redis://127.0.0.1:9", "WEBHOOK_DATABASE_URL": "postgresql://127.0.0.1:9/x",
        "WEBHOOK_TEI_URL": NOBODY, "WEBHOOK_QDRANT_URL": NOBODY,
    }  # fmt: skip
    done = subprocess.run(
        [*MILLSTREAM, "doctor", "--json"], env=bare_environ(**known, **urls), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stdout
    findings = json.loads(done.stdout)["findings"]
    healthy = {
        f["check"]
        for f in findings
        if f"according to ingest ({known['MILLSTREAM_URL']}/health)" in f["found"]
    }
    assert healthy == {"redis.reachable", "postgres.reachable", "tei.reachable", "qdrant.reachable"}
    [reach] = [f for f in findings if f["check"] == "doctor.reach"]
    assert "docker compose exec ingest millstream doctor" in reach["remedy"]
    workers = [f["found"].split(":")[0] for f in findings if f["check"] == "work.workers"]
    assert workers == list(StageName)


def test_people_are_told_in_lines_and_programs_by_the_exit_status() -> None:
    environ = bare_environ(
        WEBHOOK_LEAS="1", **dict.fromkeys(("WEBHOOK_TEI_URL", "WEBHOOK_QDRANT_URL"), NOBODY)
    )
    done = subprocess.run(
        [*MILLSTREAM, "doctor"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "fail settings.name WEBHOOK_LEAS is not a setting, so no service starts" in lines
    assert "-> rename it to WEBHOOK_LEASE" in lines
    assert any(
        line.startswith("fail tei.reachable tei does not answer as expected at 127.0.0.1:9: ")
        for line in lines
    )
