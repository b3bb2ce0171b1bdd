"""Probes the servers and records what they answer; judges nothing. Every request has a time limit.

Each probe raises DependencyError for a server that does not answer.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from cli.doctor.embedding import TeiSeen
from cli.doctor.load import Load, Stay, measure
from cli.doctor.servers import CollectionSeen, IngestSeen, PostgresSeen, QdrantSeen, RedisSeen
from cli.doctor.work import BacklogSeen
from embedder.compatibility import ChunkShape, check_compatible, handshake
from ingest.dispatch.election import DISPATCHER
from ingest.inspection.operations import OperationFilter, OperationReports
from ingest.inspection.streams import redis_errors
from shared.jobs.migrate import check_schema, deployment_of
from shared.jobs.targets import Target
from shared.pipeline.stages import OWNER, StageName
from shared.service.clients import PostgresPool, check_redis
from shared.service.errors import ConfigurationError, DependencyError, ForeignRedisError
from shared.service.health import HealthReport
from shared.service.http import UNCOMPRESSED
from shared.service.settings import QdrantSettings, RuntimeSettings
from shared.tei.client import Backoff, TeiClient, TeiInfo

_ENDED = OperationFilter(hours=1.0, operation_type="document_indexing", limit=0)
_ROUND_TRIPS = 7
_MAX_DOCUMENTS = 2000  # whose times in the stages are read
# The answer has several TCP segments, like those of searches.
_READ = {"limit": 64, "with_payload": True}
_SAMPLE = (
    "A heron stands in the shallow water at the edge of the reeds and waits for a fish to come "
    "within its reach. "
) * 4
_SAMPLES = 8

_SERVER = """
SELECT current_setting('server_version') AS server_version,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_is_in_recovery() AS is_standby,
       (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend') AS connections,
       current_setting('max_connections')::int AS max_connections,
       (SELECT coalesce(extract(epoch FROM now() - min(xact_start)), 0)::float8
        FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND backend_xmin IS NOT NULL) AS oldest_snapshot_s
"""

_BACKLOG = """
SELECT count(*) AS due,
       coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 AS longest_due_s,
       (SELECT count(*) FROM webhook.job_items
        WHERE state = 'released' AND progress_at < now() - make_interval(secs => $1)) AS stalled,
       (SELECT holder FROM webhook.leases WHERE name = $2 AND expires_at > now()) AS dispatcher
FROM (SELECT due_at FROM webhook.job_items
      WHERE state = 'queued' AND due_at < now() LIMIT 10000) queued
"""

# Documents of the oldest open jobs and of those that ended last: however many jobs wait.
_STAYS = f"""
WITH recent AS MATERIALIZED (
  (SELECT job_id FROM webhook.jobs WHERE finished_at IS NULL
   ORDER BY created_at LIMIT {_MAX_DOCUMENTS})
  UNION ALL
  (SELECT job_id FROM webhook.jobs WHERE finished_at > now() - interval '1 hour'
   ORDER BY finished_at DESC LIMIT {_MAX_DOCUMENTS}))
SELECT i.stages FROM recent, LATERAL (
  SELECT stages, finished_at FROM webhook.job_items
  WHERE job_id = recent.job_id AND finished_at > now() - interval '1 hour' AND stages <> '{{}}'
  LIMIT {_MAX_DOCUMENTS}) i
ORDER BY i.finished_at DESC LIMIT {_MAX_DOCUMENTS}
"""

_REQUEST_SECONDS = """
SELECT coalesce(sum(duration_ms), 0) / 1000 FROM webhook.operation_metrics
WHERE operation_type = 'embedding' AND timestamp BETWEEN $1 AND $2
"""

_FILLED = """
SELECT target FROM webhook.targets t
WHERE EXISTS (SELECT 1 FROM webhook.documents d
              WHERE d.target = t.target AND d.live_version IS NOT NULL)
"""


class WorkSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres knows about the work."""

    backlog: BacklogSeen
    total: int  # documents that ended within the last hour
    failed: int
    load: Load | None  # over the latest of them
    request_s: float  # of requests to TEI in that time


async def see_redis(redis: Redis) -> RedisSeen:
    """INFO, the round trip, and whether services would start with it."""
    with redis_errors():
        info = await redis.info()
        trip = await round_trip_ms(redis.ping)
        refusal = await refusal_of(check_redis(redis))
    return msgspec.convert({**info, "round_trip_ms": trip, "refusal": refusal}, RedisSeen)


async def see_owner(redis: Redis, pool: PostgresPool) -> str | None:
    """Why services would not start with both: the keys belong to the deployment of another
    database.
    """
    with redis_errors():
        stored: Any = await redis.get(OWNER)
    owner, own = (stored or b"").decode(), await deployment_of(pool)
    return str(ForeignRedisError(owner, own)) if owner not in {"", own} else None


async def see_postgres(pool: PostgresPool) -> PostgresSeen:
    """Settings, connections, the round trip, and whether services would start with it."""
    row = await pool.fetchrow(_SERVER)
    trip = await round_trip_ms(lambda: pool.fetchval("SELECT 1"))
    refusal = await refusal_of(check_schema(pool))
    return msgspec.convert({**row, "round_trip_ms": trip, "refusal": refusal}, PostgresSeen)


async def see_filled(pool: PostgresPool) -> frozenset[str]:
    """The targets with searchable documents."""
    return frozenset(row["target"] for row in await pool.fetch(_FILLED))


async def see_work(pool: PostgresPool, runtime: RuntimeSettings) -> WorkSeen:
    """The backlog, and the outcomes and times of the last hour's documents."""
    backlog = await pool.fetchrow(_BACKLOG, runtime.indexing_job_timeout, DISPATCHER)
    reports = await OperationReports(pool).report(_ENDED)
    totals = reports.operations_by_type.get("document_indexing")
    documents = [
        msgspec.convert(row["stages"], dict[StageName, Stay]) for row in await pool.fetch(_STAYS)
    ]
    load = measure(documents, runtime.stage_concurrency)
    return WorkSeen(
        backlog=msgspec.convert(dict(backlog), BacklogSeen),
        total=totals.total if totals else 0,
        failed=totals.failure_count if totals else 0,
        load=load,
        request_s=float(await pool.fetchval(_REQUEST_SECONDS, load.start, load.end))
        if load
        else 0.0,
    )


async def see_tei(client: TeiClient, shape: ChunkShape) -> TeiSeen:
    """Model, device and speed of a server; a busy one is asked again.

    Raises ConfigurationError for a server that does not fit the chunks.
    """
    served = await Backoff().run(lambda: handshake(client))
    check_compatible(served, shape)
    by_metrics = await _speed_by_metrics(client)
    by_request = (
        await Backoff().run(lambda: _speed_by_request(client, served.info))
        if by_metrics is None
        else 0.0
    )
    return TeiSeen(
        name=client.name,
        served=served,
        round_trip_ms=await round_trip_ms(client.info),
        tokens_per_s=by_metrics or by_request,
        has_metrics=by_metrics is not None,
    )


async def see_qdrant(
    session: aiohttp.ClientSession, settings: QdrantSettings, targets: Sequence[Target]
) -> QdrantSeen:
    """Its release, the collections of `targets`, and the shortest round trips."""
    key = {"api-key": str(settings.qdrant_api_key)} if settings.qdrant_api_key else {}

    async def get(path: str, body: Any = None) -> tuple[int, Any]:
        url = settings.qdrant_url.rstrip("/") + path
        status, answer = await _ask(session, "qdrant", url, {**UNCOMPRESSED, **key}, body)
        if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            setting = "WEBHOOK_QDRANT_API_KEY" if status in {401, 403} else "WEBHOOK_QDRANT_URL"
            raise DependencyError("qdrant", f"HTTP {status} (check {setting})")
        return status, answer

    _, root = await get("/")
    if "version" not in root:
        raise DependencyError("qdrant", "the answer is not Qdrant's (check WEBHOOK_QDRANT_URL)")
    collections = [
        collection_seen(each, (await get(f"/collections/{each.target}"))[1]) for each in targets
    ]
    stored = next(
        (f"/collections/{seen.target.target}" for seen in collections if seen.exists), None
    )
    return QdrantSeen(
        version=root["version"],
        round_trip_ms=await round_trip_ms(lambda: get("/")),
        read_ms=await round_trip_ms(lambda: get(f"{stored}/points/scroll", _READ))
        if stored
        else None,
        collections=collections,
    )


def collection_seen(target: Target, answer: Any) -> CollectionSeen:
    """Read the answer to `GET /collections/NAME`; one without a result means that none exists."""
    result = answer.get("result")
    if not result:
        return CollectionSeen(target=target, exists=False)
    config = result["config"]
    return CollectionSeen(
        target=target,
        exists=True,
        status=result["status"],
        dimension=((config["params"].get("vectors") or {}).get("dense") or {}).get("size"),
        generation=(config.get("metadata") or {}).get("generation"),
    )


async def see_ingest(session: aiohttp.ClientSession, url: str, secret: str) -> IngestSeen:
    """The health report of ingest, and whether it accepts the secret."""
    url = url.rstrip("/")
    _, health = await _ask(session, "ingest", f"{url}/health", {})
    status, _ = await _ask(
        session, "ingest", f"{url}/api/jobs?limit=1", {"Authorization": f"Bearer {secret}"}
    )
    trip = await round_trip_ms(lambda: _ask(session, "ingest", f"{url}/livez", {}))
    try:
        report = msgspec.convert(health, HealthReport)
    except msgspec.ValidationError as error:
        raise DependencyError("ingest", f"the answer is not ingest's: {error}") from error
    return IngestSeen(url=url, health=report, secret_status=status, round_trip_ms=trip)


async def round_trip_ms(call: Callable[[], Awaitable[Any]]) -> float:
    """The shortest of several, in milliseconds: the network's share, not that of busy machines."""
    shortest = float("inf")
    for _ in range(_ROUND_TRIPS):
        started = time.perf_counter()
        await call()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest * 1000


async def refusal_of(check: Awaitable[None]) -> str | None:
    """The reason why a service would not start, None if it would."""
    try:
        await check
    except ConfigurationError as error:
        return str(error)
    return None


def speed_by_metrics(text: str) -> float | None:
    """Tokens a second over TEI's lifetime, from its own metrics; None before its first batch."""
    names = {"te_batch_next_tokens_sum", "te_batch_inference_duration_sum"}
    sums: Mapping[str, float] = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    }
    seconds = sums.get("te_batch_inference_duration_sum")
    return sums.get("te_batch_next_tokens_sum", 0.0) / seconds if seconds else None


async def _speed_by_metrics(client: TeiClient) -> float | None:
    try:
        return speed_by_metrics(await client.metrics())
    except (DependencyError, ValueError):  # on another port, or in another format
        return None


async def _speed_by_request(client: TeiClient, info: TeiInfo) -> float:
    tokens = len(await client.tokenize(_SAMPLE))
    texts = [_SAMPLE] * min(_SAMPLES, info.max_client_batch_size)
    started = time.perf_counter()
    await client.embed(texts)
    return tokens * len(texts) / (time.perf_counter() - started)


async def _ask(
    session: aiohttp.ClientSession,
    service: str,
    url: str,
    headers: Mapping[str, str],
    body: Any = None,
) -> tuple[int, Any]:
    """GET, or POST if there is a body. The session keeps the connection."""
    try:
        async with session.request(
            "POST" if body else "GET", url, headers=headers, json=body
        ) as answer:
            return answer.status, await answer.json(content_type=None)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DependencyError(service, f"{type(error).__name__}: {error}") from error
