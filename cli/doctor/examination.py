"""One examination: reads the settings, looks at every server, and has what was seen judged."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import msgspec
from msgspec.structs import replace

from cli.client import DEFAULT_URL
from cli.doctor import advice, probes
from cli.doctor.embedding import elsewhere, judge_tei, runs_on_gpu
from cli.doctor.finding import Examination, Finding, Findings, refusal, worst
from cli.doctor.load import StageLoad
from cli.doctor.servers import judge_ingest, judge_postgres, judge_qdrant, judge_redis, unreachable
from cli.doctor.settings import DoctorSettings, read_settings
from cli.doctor.work import judge_backlog, judge_stage
from embedder.compatibility import PROBE, ChunkShape
from ingest.inspection.streams import StageState, StreamInspector
from ingest.inspection.throughput import Throughput
from shared.jobs.targets import Target, Targets
from shared.service.clients import PostgresPool, postgres_pool, redis_command
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.http import UNCOMPRESSED
from shared.service.redis_refusal import RefusedConnectionError
from shared.service.settings import ChunkerSettings
from shared.tei.client import TeiClient
from shared.tei.servers import tei_clients
from shared.tei.tokenizer import load_tokenizer

_POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """Postgres, as far as it can be asked."""

    findings: Findings
    pool: PostgresPool | None = None  # None: it does not answer, or has another schema
    targets: list[Target] = []
    filled: frozenset[str] = frozenset()  # targets with documents that search shows


async def examine(environ: Mapping[str, str]) -> Examination:
    """Look at everything that the environment names. A server that does not answer is a finding."""
    settings, findings = read_settings(environ)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=_HTTP_TIMEOUT, headers=UNCOMPRESSED))
        registry = await _look_at_postgres(settings, stack)
        url = environ.get("MILLSTREAM_URL") or DEFAULT_URL
        ingest, (redis, stages), qdrant, (tei, is_on_gpu) = await asyncio.gather(
            _look_at_ingest(session, url, settings),
            _look_at_redis(settings, stack),
            _look_at_qdrant(session, settings, registry),
            _look_at_tei(session, settings, registry.targets),
        )
        work, loads = await _look_at_work(settings, registry.pool, stages, is_on_gpu=is_on_gpu)
    findings = [*findings, *ingest, *registry.findings, *redis, *qdrant, *tei, *work]
    return Examination(verdict=worst(findings), findings=findings, stages=loads)


async def _look_at_postgres(settings: DoctorSettings, stack: AsyncExitStack) -> Registry:
    try:
        pool = await postgres_pool(settings.postgres.database_url, name="doctor", max_size=2)
        stack.push_async_callback(pool.close)
        seen = await probes.see_postgres(pool)
        findings = judge_postgres(seen)
        if seen.refusal:
            return Registry(findings=findings)
        targets, filled = await Targets(pool).all_live(), await probes.see_filled(pool)
        return Registry(findings=findings, pool=pool, targets=targets, filled=filled)
    except (DependencyError, *_POSTGRES_ERRORS) as error:
        return Registry(findings=[unreachable("postgres", str(error) or type(error).__name__)])


async def _look_at_ingest(session: aiohttp.ClientSession, url: str, settings: DoctorSettings) -> Findings:
    try:
        return judge_ingest(await probes.see_ingest(session, url, settings.ingest.api_secret))
    except DependencyError as error:
        return [unreachable("ingest", error.reason)]


async def _look_at_redis(settings: DoctorSettings, stack: AsyncExitStack) -> tuple[Findings, list[StageState]]:
    """The stages are empty if they cannot be seen."""
    lease = settings.runtime.lease
    try:
        redis = redis_command(settings.redis.redis_url)
        stack.push_async_callback(redis.aclose)
        findings = judge_redis(await probes.see_redis(redis))
        inspector = StreamInspector(redis, Throughput(redis))
        stages = (await inspector.streams()).stages
        for stage in stages:
            abandoned = await inspector.pending(stage.stage, idle_over=lease)
            findings += judge_stage(stage, abandoned.entries, lease)
    except (DependencyError, ValueError) as error:  # ValueError: not the URL of a Redis
        return [_redis_trouble(error)], []
    return findings, stages


def _redis_trouble(error: DependencyError | ValueError) -> Finding:
    if isinstance(error.__cause__, RefusedConnectionError):
        return refusal("redis.reachable", f"redis refuses connections: {error.__cause__}", "lost-redis")
    return unreachable("redis", getattr(error, "reason", str(error)))


async def _look_at_qdrant(session: aiohttp.ClientSession, settings: DoctorSettings, registry: Registry) -> Findings:
    try:
        seen = await probes.see_qdrant(session, settings.qdrant, registry.targets)
        return judge_qdrant(seen, registry.filled)
    except DependencyError as error:
        return [unreachable("qdrant", error.reason)]


async def _look_at_tei(
    session: aiohttp.ClientSession, settings: DoctorSettings, targets: Sequence[Target]
) -> tuple[Findings, bool]:
    """The servers of WEBHOOK_TEI_URL and those that collections have of their own; whether all run on a GPU."""
    settled = [target for target in targets if target.dimension is not None]
    uses = [(settings.tei.tei_url, settings.chunker, [target for target in settled if target.tei_url is None])]
    uses += [(url, t.chunking(settings.chunker), [t]) for t in settled if (url := t.tei_url) is not None]
    looks = [
        look
        for url, chunker, served in uses
        for look in await _look_at_servers(tei_clients(session, replace(settings.tei, tei_url=url)), chunker, served)
    ]
    return [finding for findings, _ in looks for finding in findings], all(is_on_gpu for _, is_on_gpu in looks)


async def _look_at_servers(
    clients: Sequence[TeiClient], chunker: ChunkerSettings, targets: Sequence[Target]
) -> list[tuple[Findings, bool]]:
    """Servers of one model. A tokenizer that cannot be read here is a finding, and keeps only these from being seen."""
    try:
        ids = tuple(load_tokenizer(chunker.tokenizer).encode(PROBE).ids)
    except ConfigurationError as error:
        return [([refusal("settings.tokenizer", str(error))], False)]
    shape = ChunkShape(max_tokens=chunker.max_chunk_tokens, probe_ids=ids)
    return [await _look_at_server(client, shape, targets) for client in clients]


async def _look_at_server(client: TeiClient, shape: ChunkShape, targets: Sequence[Target]) -> tuple[Findings, bool]:
    try:
        seen = await probes.see_tei(client, shape)
        return judge_tei(seen, targets), runs_on_gpu(seen)
    except DependencyError as error:
        return [unreachable("tei", f"{client.name}: {error.reason}", elsewhere(targets))], False
    except ConfigurationError as error:
        return [refusal("tei.model", str(error))], False


async def _look_at_work(
    settings: DoctorSettings, pool: PostgresPool | None, stages: Sequence[StageState], *, is_on_gpu: bool
) -> tuple[Findings, list[StageLoad]]:
    if pool is None:
        return [], []
    try:
        seen = await probes.see_work(pool, settings.runtime)
    except (DependencyError, *_POSTGRES_ERRORS) as error:
        return [unreachable("postgres", str(error))], []
    findings = judge_backlog(seen.backlog, stages[0]) if stages else []
    findings.append(advice.failure_rate(seen.total, seen.failed))
    if seen.load is None:
        return findings, []
    tei = advice.TeiLoad(servers=len(settings.tei.tei_urls), is_on_gpu=is_on_gpu, request_s=seen.request_s)
    conditions = advice.Conditions(
        batch_size=settings.dispatch.worker_batch_size,
        timeout_s=settings.runtime.indexing_job_timeout,
        has_backlog=seen.backlog.due > 0,
    )
    return [*findings, *advice.measured(seen.load, tei, conditions)], seen.load.stages
