"""A stage's worker on real Redis and Postgres, with a handler that the test writes."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Never

import msgspec
from redis.asyncio import Redis

from ingest.dispatch.dispatcher import Dispatcher
from ingest.jobs.accept import accept
from shared.jobs.model import JobKind, NewItem, NewJob
from shared.jobs.operations import OperationLog
from shared.jobs.progress import Ended, Progress
from shared.jobs.targets import Targets
from shared.pipeline.entries import Consumer
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, DocumentRef
from shared.pipeline.outcomes import ItemState, Outcome
from shared.pipeline.stages import FIRST_STAGE, StageName
from shared.runtime.faults.breaker import Breakers, Canary
from shared.runtime.faults.correlated_failure import Rests
from shared.runtime.faults.failures import Failures, Patience
from shared.runtime.recorder import Recorder
from shared.runtime.runner import StageRunner
from shared.runtime.slots import Slots
from shared.runtime.stage import Batch, Document, Stage
from shared.runtime.streams.deployment import Deployment
from shared.runtime.streams.gate import Gate, Mark
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.janitor import Janitor
from shared.runtime.streams.leases import Leases
from shared.runtime.worker import Worker
from shared.service.clients import PostgresPool, redis_reader
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings, Seconds
from tests.support.documents import COLLECTION

TARGET = f"{COLLECTION}_1"
FIRST_STREAM = StageName.CHUNKER.stream(Lane.NORMAL)

_RELEASE = """
UPDATE webhook.job_items SET state = 'released', release = release + 1
WHERE job_id = $1 AND state = 'queued'
RETURNING job_id::text, position, release, document_id::text, version, url
"""

Handle = Callable[[Document], Awaitable[Outcome]]


class Servers(msgspec.Struct, frozen=True):
    """Redis and Postgres, empty, with the schema in place."""

    redis_url: str
    redis: Redis
    database_url: str
    pool: PostgresPool
    deployment: Deployment


class FakeStage(Stage[Batch, Never]):
    """A stage whose documents are handled by `handle`."""

    def __init__(self, name: StageName, handle: Handle) -> None:
        self.name = name  # type: ignore[misc]
        self._handle = handle

    async def handle_document(self, document: Document, prepared: Batch) -> Outcome:
        return await self._handle(document)


def runtime_settings(**changes: Any) -> RuntimeSettings:
    """Short times, so that leases and drains end within a test."""
    short = {"lease": Seconds(0.6), "lease_renewal": Seconds(0.1), "drain_timeout": Seconds(2)}
    return RuntimeSettings(**{**short, **changes})


def make_worker(
    servers: Servers,
    reader: Redis,
    stage: FakeStage,
    settings: RuntimeSettings,
    name: str,
    canaries: Mapping[str, Canary],
    rests: Rests = Rests(),  # noqa: B008 - frozen
) -> Worker:
    consumer = Consumer(stage=stage.name, name=name, lease=settings.lease)
    metrics = Metrics()
    breakers = Breakers(canaries, metrics)
    patience = Patience(settings.max_attempts, rests)
    failures = Failures(stage.name, patience, breakers, random.Random(1))
    leases = Leases(servers.redis, consumer, settings.lease_renewal)
    progress = Progress(servers.pool, stage.name, name)
    return Worker(
        stage=stage.name,
        runner=StageRunner(stage, Targets(servers.pool), failures, settings.document_timeout),
        intake=Intake(reader, servers.deployment, consumer, leases, None),
        leases=leases,
        recorder=Recorder(progress, OperationLog(servers.pool), metrics, stage.name),
        handover=HandOver(servers.redis, consumer, metrics),
        breakers=breakers,
        janitor=Janitor(servers.redis, consumer),
        slots=Slots(settings.stage_concurrency),
        settings=settings,
        metrics=metrics,
    )


@contextlib.asynccontextmanager
async def running_worker(
    servers: Servers,
    handle: Handle,
    *,
    stage: StageName = StageName.CHUNKER,
    consumer: str = "w1",
    canaries: Mapping[str, Canary] | None = None,
    rests: Rests = Rests(),  # noqa: B008 - frozen
    **settings: Any,
) -> AsyncIterator[Worker]:
    """Run a worker until the block ends, then drain it."""
    reader = redis_reader(servers.redis_url)
    chosen = runtime_settings(**settings)
    worker = make_worker(
        servers, reader, FakeStage(stage, handle), chosen, consumer, canaries or {}, rests
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await running
        await reader.aclose()


def make_dispatcher(servers: Servers, *, entries: int = 1000, size: str = "4") -> Dispatcher:
    gates = {
        action: Gate(servers.redis, stage, Mark(entries, 10**9))
        for action, stage in FIRST_STAGE.items()
    }
    return Dispatcher(
        servers.pool, servers.deployment, gates, Metrics(), size=size, stage_timeout=600
    )  # fmt: skip


async def accept_documents(
    servers: Servers, count: int, *,
    source: str = "crawl", lane: Lane = Lane.NORMAL, action: Action = Action.INDEX,
    callback_url: str | None = None, traceparent: str | None = None,
    collection: str = COLLECTION,
) -> str:  # fmt: skip
    """Accept a job of `count` documents; its id."""
    await Targets(servers.pool).ensure(collection)
    job = NewJob(
        job_id=str(uuid.uuid4()),
        kind=JobKind.INDEX_BATCH,
        lane=lane,
        collection=collection,
        timeout=600,
        crawl_id=source,
        callback_url=callback_url,
        traceparent=traceparent,
    )
    items = [
        NewItem(
            url=f"https://example.com/{n}", domain="example.com", source=source, lane=lane,
            collection=collection, document_id=str(uuid.uuid4()), action=action,
            body=None if action is Action.DELETE else b"{}",
        )
        for n in range(count)
    ]  # fmt: skip
    return await accept(servers.pool, job, items, None)


async def release(servers: Servers, job_id: str) -> list[DocumentRef]:
    """Release the queued items of a job, as the dispatcher would."""
    rows = await servers.pool.fetch(_RELEASE, job_id)
    return sorted((DocumentRef(**row) for row in rows), key=lambda ref: ref.position)


async def end(
    servers: Servers,
    refs: list[DocumentRef],
    code: str | None = None,
    stage: StageName = StageName.INDEXER,
) -> None:
    """End released items as a stage would: well, or with a code."""
    progress = Progress(servers.pool, stage, "w")
    await progress.start(refs)
    state = ItemState.INDEXED if code is None else ItemState.FAILED
    error = f"{code} [it] broke" if code else None
    await progress.end(
        [Ended(ref=ref, state=state, code=code, error=error, attempts=1) for ref in refs], 2
    )


async def release_all(servers: Servers) -> None:
    """Make the groups, and put all accepted documents into the streams."""
    for stage in StageName:
        await create_groups(servers.redis, stage)
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    while await dispatcher.release_some():
        pass


async def pending(
    servers: Servers, stream: str = FIRST_STREAM, group: str = StageName.CHUNKER
) -> list[dict[str, Any]]:
    """The pending entries of a stream, as XPENDING gives them."""
    found: list[dict[str, Any]] = await servers.redis.xpending_range(stream, group, "-", "+", 100)
    return found


async def abandon(servers: Servers, deliveries: int = 1, idle: int = 60_000) -> None:
    """Have a dead consumer hold every entry of the first stream.

    Each was delivered `deliveries` times and has been idle for `idle` milliseconds.
    """
    chunker = StageName.CHUNKER
    await servers.redis.xreadgroup(chunker, "dead", {FIRST_STREAM: ">"}, count=100)
    for row in await pending(servers):
        await servers.redis.xclaim(
            FIRST_STREAM,
            chunker,
            "dead",
            0,
            [row["message_id"]],
            idle=idle,
            retrycount=deliveries,
            justid=True,
        )


async def states(servers: Servers, job_id: str) -> list[str]:
    """The states of a job's items, in order."""
    rows = await servers.pool.fetch(
        "SELECT state FROM webhook.job_items WHERE job_id = $1 ORDER BY position", job_id
    )
    return [row["state"] for row in rows]


async def job_status(servers: Servers, job_id: str) -> object:
    """The job's final status, or None."""
    return await servers.pool.fetchval(
        "SELECT status FROM webhook.jobs WHERE job_id = $1 AND finished_at IS NOT NULL", job_id
    )


async def entries_of(servers: Servers, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """All entries of a stream: id and fields."""
    entries: Any = await servers.redis.xrange(stream)
    return list(entries)


async def depth(servers: Servers, stage: StageName, lanes: Sequence[Lane] = tuple(Lane)) -> int:
    """Entries in the stage's streams."""
    return sum([int(await servers.redis.xlen(stage.stream(lane))) for lane in lanes])
