"""A healthy world for `millstream doctor`: real Redis, Postgres and Qdrant, stand-ins of the rest.

The workers are consumers that have just read their groups. One document is indexed, in the only
collection.
"""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator

import msgspec
from qdrant_client import AsyncQdrantClient

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import ensure_collection
from ingest.http.app import make_app
from ingest.http.sessions import Sessions
from shared.jobs.targets import Targets
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, Header, encode_header
from shared.pipeline.stages import StageName
from shared.runtime.streams.groups import create_groups
from shared.service.auth import Authenticator
from shared.service.health import Health, add_health_routes
from shared.service.http import problem_middleware
from shared.service.metrics import Metrics
from shared.service.settings import QdrantSettings, Secret
from tests.support.documents import COLLECTION
from tests.support.ingest_server import KEY, TOKEN, serving
from tests.support.stage_harness import Servers, accept_documents
from tests.support.tei_stand_in import TeiStandIn

TARGET = f"{COLLECTION}_1"
MODEL, DIMENSION = "stand-in", 384


class Examined(msgspec.Struct):
    """What is examined; `environ` names all of it, and a test may change it."""

    environ: dict[str, str]
    servers: Servers
    qdrant: AsyncQdrantClient


@contextlib.asynccontextmanager
async def examined(servers: Servers, qdrant: QdrantSettings) -> AsyncIterator[Examined]:
    """`servers` must be empty."""
    client = make_client(qdrant)
    await _index_a_document(servers, client)
    for stage in StageName:
        await start_worker(servers, stage)
    app = make_app(Authenticator(Secret(TOKEN), Secret(KEY)), Sessions(Secret(TOKEN)), 1024)
    app.middlewares.insert(0, problem_middleware)
    add_health_routes(app, Health(checks={}, instance="host:1:test"), Metrics())
    async with TeiStandIn() as tei, serving(app) as url:
        environ = {
            "MILLSTREAM_URL": url,
            "WEBHOOK_API_SECRET": TOKEN,
            "WEBHOOK_SECRET": KEY,
            "WEBHOOK_REDIS_URL": servers.redis_url,
            "WEBHOOK_DATABASE_URL": servers.database_url,
            "WEBHOOK_TEI_URL": tei.url,
            "WEBHOOK_QDRANT_URL": qdrant.qdrant_url,
            "WEBHOOK_QDRANT_API_KEY": str(qdrant.qdrant_api_key),
        }
        yield Examined(environ, servers, client)
    await client.delete_collection(TARGET)
    await client.close()


async def start_worker(servers: Servers, stage: StageName, consumer: str = "alive") -> None:
    """Have a consumer ask for entries in every lane of a stage; it gets one if there is one."""
    await create_groups(servers.redis, stage)
    await servers.redis.xreadgroup(stage, consumer, dict.fromkeys(stage.streams, ">"), count=1)


async def leave_entry(servers: Servers, *, idle_ms: int, deliveries: int = 1) -> None:
    """Have an embedder that is dead hold an entry for so long."""
    ref = DocumentRef(
        job_id="j",
        position=0,
        release=1,
        document_id="d",
        version=1,
        url="https://example.com/stuck",
    )
    stream = StageName.EMBEDDER.stream(Lane.NORMAL)
    header = encode_header(Header(target=TARGET, lane=Lane.NORMAL, documents=(ref,)))
    entry_id = await servers.redis.xadd(stream, {"h": header, "b": b""})
    await start_worker(servers, StageName.EMBEDDER, "dead")
    await servers.redis.xclaim(
        stream, StageName.EMBEDDER, "dead", 0, [entry_id],
        idle=idle_ms, retrycount=deliveries, justid=True,
    )  # fmt: skip


async def end_documents(servers: Servers, *, succeeded: int, failed: int) -> None:
    """Note in the metrics that so many documents have just ended."""
    await servers.pool.executemany(
        "INSERT INTO webhook.operation_metrics "
        "(operation_type, operation_name, duration_ms, success) "
        "VALUES ('document_indexing', 'index', 1, $1)",
        [(n < succeeded,) for n in range(succeeded + failed)],
    )


async def work_through(servers: Servers, seconds: float) -> None:
    """Record three batches of two documents that took the embedder so long, one after the other."""
    job_id = await accept_documents(servers, 6)
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    for position in range(6):
        start = begin + dt.timedelta(seconds=position // 2 * seconds)
        end = start + dt.timedelta(seconds=seconds)
        stages = {
            "embedder": {
                "started_at": start.isoformat(),
                "finished_at": end.isoformat(),
                "worker": "e1",
            }
        }
        await servers.pool.execute(
            "UPDATE webhook.job_items SET state = 'indexed', stages = $3, finished_at = now() "
            "WHERE job_id = $1 AND position = $2",
            job_id, position, stages,
        )  # fmt: skip


async def _index_a_document(servers: Servers, client: AsyncQdrantClient) -> None:
    targets = Targets(servers.pool)
    await targets.ensure(COLLECTION)
    target = await targets.settle(TARGET, MODEL, DIMENSION)
    await ensure_collection(
        client,
        TARGET,
        dimension=DIMENSION,
        generation=target.generation,
        keyword=KeywordParameters(avg_len=100.0),
    )
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence, live_version) "
        "VALUES ($1, $2, 1, 1)",
        TARGET, uuid.uuid4(),
    )  # fmt: skip
