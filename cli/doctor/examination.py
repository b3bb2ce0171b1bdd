"""One examination: reads the settings, probes ingest and every server, has the results judged."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import msgspec

from cli.client import DEFAULT_URL
from cli.doctor import advice, probes
from cli.doctor.embedding import elsewhere, judge_query_server, judge_tei, runs_on_gpu
from cli.doctor.finding import Examination, Finding, Findings, refusal, worst
from cli.doctor.load import StageLoad
from cli.doctor.servers import (
    IngestSeen,
    judge_ingest,
    judge_postgres,
    judge_qdrant,
    judge_redis,
    reachable,
)
from cli.doctor.settings import DoctorSettings, check_secrets, read_settings
from cli.doctor.streams import IngestStreams, Streams
from cli.doctor.vantage import Vantage, unreachable
from cli.doctor.work import judge_backlog, judge_stage, judge_waits
from cli.output import without_credentials
from embedder.compatibility import PROBE, ChunkShape
from ingest.inspection.streams import StageState, StreamInspector
from ingest.inspection.throughput import Throughput
from shared.jobs.targets import Target, Targets
from shared.service.clients import PostgresPool, postgres_pool, redis_command
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.health import StageHealth
from shared.service.http import UNCOMPRESSED
from shared.service.redis_refusal import RefusedConnectionError
from shared.service.settings import ChunkerSettings
from shared.tei.allowed import TeiServer, addresses, allowed_servers, own_servers
from shared.tei.client import TeiClient
from shared.tei.servers import first_success, tei_clients
from shared.tei.tokenizer import load_tokenizer

_POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres has about collections."""

    findings: Findings
    pool: PostgresPool | None = None  # None: it does not answer, or has another schema
    targets: list[Target] = []
    filled: frozenset[str] = frozenset()  # targets with searchable documents


async def examine(environ: Mapping[str, str]) -> Examination:
    """Examine all that the environment names; ingest first. A server that fails is a finding."""
    settings, findings = read_settings(environ)
    url = environ.get("MILLSTREAM_URL") or DEFAULT_URL
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=_HTTP_TIMEOUT, headers=UNCOMPRESSED)
        )
        seen, of_ingest = await _probe_ingest(session, url, settings)
        vantage = Vantage(url, seen.health.services if seen else None)
        examiner = Examiner(settings, session, stack, vantage)
        of_servers, loads = await examiner.examine(seen)
    secrets = check_secrets(settings, ingest_answers=vantage.ingest_answers)
    findings = [*findings, *secrets, *of_ingest, *of_servers, *vantage.findings()]
    return Examination(verdict=worst(findings), findings=findings, stages=loads)


async def _probe_ingest(
    session: aiohttp.ClientSession, url: str, settings: DoctorSettings
) -> tuple[IngestSeen | None, Findings]:
    try:
        seen = await probes.see_ingest(session, url, settings.ingest.api_secret)
    except DependencyError as error:
        return None, [unreachable("ingest", url, error.reason)]
    return seen, judge_ingest(seen)


class Examiner:
    """Examines the servers and the work, with the clients that it needs for it."""

    def __init__(
        self,
        settings: DoctorSettings,
        session: aiohttp.ClientSession,
        stack: AsyncExitStack,
        vantage: Vantage,
    ) -> None:
        """`stack` closes the clients."""
        self._settings = settings
        self._session = session
        self._stack = stack
        self._vantage = vantage

    async def examine(self, ingest: IngestSeen | None) -> tuple[Findings, list[StageLoad]]:
        """All findings about servers and work, and the load of the stages."""
        registry = await self._examine_postgres()
        (redis, stages), qdrant, (tei, is_on_gpu) = await asyncio.gather(
            self._examine_redis(ingest, registry.pool),
            self._examine_qdrant(registry),
            self._examine_tei(registry.targets),
        )
        work, loads = await self._examine_work(registry.pool, stages, is_on_gpu=is_on_gpu)
        return [*registry.findings, *redis, *qdrant, *tei, *work], loads

    async def _examine_postgres(self) -> Registry:
        url = self._settings.postgres.database_url
        where = without_credentials(url)
        try:
            pool = await postgres_pool(url, name="doctor", max_size=2)
            self._stack.push_async_callback(pool.close)
            seen = await probes.see_postgres(pool)
            findings = [reachable("postgres", where), *judge_postgres(seen)]
            if seen.refusal:
                return Registry(findings=findings)
            targets, filled = await Targets(pool).all_live(), await probes.see_filled(pool)
            return Registry(findings=findings, pool=pool, targets=targets, filled=filled)
        except (DependencyError, *_POSTGRES_ERRORS) as error:
            reason = str(error) or type(error).__name__
            return Registry(findings=[self._vantage.unreachable("postgres", where, reason)])

    async def _examine_redis(
        self, ingest: IngestSeen | None, pool: PostgresPool | None
    ) -> tuple[Findings, list[StageState]]:
        """Redis and the stages; the latter are empty if their streams cannot be read."""
        url = self._settings.redis.redis_url
        findings: Findings
        streams: Streams
        try:
            redis = redis_command(url)
            self._stack.push_async_callback(redis.aclose)
            findings = judge_redis(await probes.see_redis(redis))
            findings.insert(0, reachable("redis", without_credentials(url)))
            if pool and (reason := await probes.see_owner(redis, pool)):
                findings.append(refusal("redis.owner", reason, "lost-redis"))
            streams = StreamInspector(redis, Throughput(redis))
        except (DependencyError, ValueError) as error:  # ValueError: not a URL of Redis
            findings = [self._redis_finding(error)]
            if ingest is None:
                return findings, []
            streams = IngestStreams(self._session, ingest.url, self._settings.ingest.api_secret)
        reported = (ingest.health.stages or {}) if ingest else {}
        try:
            of_streams, stages = await self._examine_streams(streams, reported)
        except DependencyError:  # a refused secret, or a Redis that failed just now: has a finding
            return findings, []
        return [*findings, *of_streams], stages

    async def _examine_streams(
        self, streams: Streams, reported: Mapping[str, StageHealth]
    ) -> tuple[Findings, list[StageState]]:
        """`reported` are the stages as ingest's /health shows them."""
        lease = self._settings.runtime.lease
        stages = (await streams.streams()).stages
        findings = judge_waits(reported)
        for stage in stages:
            abandoned = await streams.pending(stage.stage, idle_over=lease)
            health = reported.get(stage.stage)
            workers = health.workers if health else 0
            findings += judge_stage(stage, abandoned.entries, lease, workers)
        return findings, stages

    def _redis_finding(self, error: DependencyError | ValueError) -> Finding:
        if isinstance(error.__cause__, RefusedConnectionError):
            found = f"redis refuses connections: {error.__cause__}"
            return refusal("redis.reachable", found, "lost-redis")
        where = without_credentials(self._settings.redis.redis_url)
        return self._vantage.unreachable("redis", where, getattr(error, "reason", str(error)))

    async def _examine_qdrant(self, registry: Registry) -> Findings:
        where = without_credentials(self._settings.qdrant.qdrant_url)
        try:
            seen = await probes.see_qdrant(self._session, self._settings.qdrant, registry.targets)
        except DependencyError as error:
            return [self._vantage.unreachable("qdrant", where, error.reason)]
        return [reachable("qdrant", where), *judge_qdrant(seen, registry.filled)]

    async def _examine_tei(self, targets: Sequence[Target]) -> tuple[Findings, bool]:
        """The servers of WEBHOOK_TEI_URL and of collections; and whether all run on a GPU."""
        common, chunker = self._settings.tei, self._settings.chunker
        settled = [target for target in targets if target.dimension is not None]
        shared = [target for target in settled if target.tei_url is None]
        own = own_servers(common, common.tei_url)
        looks = await self._examine_servers(own, chunker, shared)
        findings: Findings = []
        for target in targets:
            try:
                shape = target.chunking(chunker)
                servers = allowed_servers(common, target.tei_url) if target.tei_url else []
            except ConfigurationError as error:
                findings.append(refusal("collection.allowed", f"{target.collection}: {error}"))
                continue
            if servers and target in settled:
                looks += await self._examine_servers(servers, shape, [target])
        findings += [finding for found, _ in looks for finding in found]
        findings += await self._examine_query_servers(own)
        return findings, all(is_on_gpu for _, is_on_gpu in looks)

    async def _examine_query_servers(self, own: Sequence[TeiServer]) -> Findings:
        """The servers of WEBHOOK_SEARCH_TEI_URL, which must serve the model of WEBHOOK_TEI_URL."""
        tei = self._settings.tei
        if tei.search_tei_url is None:
            return []
        of_documents = None
        with contextlib.suppress(DependencyError):  # which has a finding
            calls = [client.info for client in tei_clients(self._session, tei, own)]
            of_documents = await first_success(calls)
        findings: Findings = []
        of_queries = own_servers(tei, tei.of_queries)
        for client in tei_clients(self._session, tei, of_queries):
            try:
                findings.append(judge_query_server(client.name, await client.info(), of_documents))
            except DependencyError as error:
                if not self._vantage.hides("tei"):  # else these cannot be reached from here either
                    instead = "correct WEBHOOK_SEARCH_TEI_URL"
                    findings.append(unreachable("tei", client.name, error.reason, instead))
        return findings

    async def _examine_servers(
        self, servers: Sequence[TeiServer], chunker: ChunkerSettings, targets: Sequence[Target]
    ) -> list[tuple[Findings, bool]]:
        """The servers of one model. An unreadable tokenizer hides only these from the doctor."""
        try:
            ids = tuple(load_tokenizer(chunker.tokenizer).encode(PROBE).ids)
        except ConfigurationError as error:
            return [([refusal("settings.tokenizer", str(error))], False)]
        shape = ChunkShape(max_tokens=chunker.max_chunk_tokens, probe_ids=ids)
        clients = tei_clients(self._session, self._settings.tei, servers)
        return [await self._examine_server(client, shape, targets) for client in clients]

    async def _examine_server(
        self, client: TeiClient, shape: ChunkShape, targets: Sequence[Target]
    ) -> tuple[Findings, bool]:
        try:
            seen = await probes.see_tei(client, shape)
            return judge_tei(seen, targets), runs_on_gpu(seen)
        except DependencyError as error:
            if instead := elsewhere(targets):  # ingest's /health does not cover it
                return [unreachable("tei", client.name, error.reason, instead)], False
            return [self._vantage.unreachable("tei", client.name, error.reason)], False
        except ConfigurationError as error:
            return [refusal("tei.model", str(error))], False

    async def _examine_work(
        self, pool: PostgresPool | None, stages: Sequence[StageState], *, is_on_gpu: bool
    ) -> tuple[Findings, list[StageLoad]]:
        """The backlog, the failures and the load of the last hour, if Postgres can be read."""
        settings = self._settings
        if pool is None:
            return [], []
        try:
            seen = await probes.see_work(pool, settings.runtime)
        except (DependencyError, *_POSTGRES_ERRORS) as error:
            where = without_credentials(settings.postgres.database_url)
            return [self._vantage.unreachable("postgres", where, str(error))], []
        findings = judge_backlog(seen.backlog, stages[0]) if stages else []
        findings.append(advice.failure_rate(seen.total, seen.failed))
        if seen.load is None:
            return findings, []
        servers = len(addresses(settings.tei.tei_url))
        tei = advice.TeiLoad(servers=servers, is_on_gpu=is_on_gpu, request_s=seen.request_s)
        conditions = advice.Conditions(
            batch_size=settings.dispatch.worker_batch_size,
            timeout_s=settings.runtime.indexing_job_timeout,
            has_backlog=seen.backlog.due > 0,
        )
        return [*findings, *advice.measured(seen.load, tei, conditions)], seen.load.stages
