"""Jobs in Postgres: accepting, counting, trying again, cancelling, and what grows old."""

import asyncio
import datetime as dt
import uuid

import pytest

from ingest.jobs.accept import DeliveryKey, IdempotencyConflictError, accept
from ingest.jobs.control import JobControl
from ingest.jobs.retention import partition_of
from ingest.jobs.store import JobCursor, JobFilter, JobStore
from ingest.upkeep.housekeeping import Housekeeper
from shared.jobs.migrate import check_schema
from shared.jobs.model import JobKind, JobStatus, NewItem, NewJob
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.progress import Ended, Progress
from shared.jobs.targets import Targets
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, decode_header
from shared.pipeline.outcomes import ItemState
from shared.pipeline.stages import StageName
from tests.support.documents import COLLECTION
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    entries_of,
    make_dispatcher,
    states,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


def new_job(job_id: str | None = None) -> NewJob:
    return NewJob(
        job_id=job_id or str(uuid.uuid4()),
        kind=JobKind.INDEX_BATCH,
        lane=Lane.LOW,
        collection=COLLECTION,
        timeout=600,
    )


def new_item(error: str | None = None) -> NewItem:
    return NewItem(
        url="https://example.com/", source="s", lane=Lane.LOW, collection=COLLECTION,
        document_id=None if error else str(uuid.uuid4()), body=None if error else b"{}", code=error, error=error,
    )  # fmt: skip


def key(
    name: str, *, body: bytes = b"", is_explicit: bool = True, window: float = 60
) -> DeliveryKey:
    return DeliveryKey(
        scope="test", key=name, request_hash=body, window=window, is_explicit=is_explicit
    )


async def released_refs(servers: Servers) -> list[DocumentRef]:
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    while await dispatcher.release_some():
        pass
    streams = [StageName.CHUNKER.stream(lane) for lane in Lane]
    entries = [entry for stream in streams for _, entry in await entries_of(servers, stream)]
    return [ref for fields in entries for ref in decode_header(fields[b"h"]).documents]


async def end(servers: Servers, refs: list[DocumentRef], state: ItemState) -> None:
    progress = Progress(servers.pool, StageName.INDEXER, "w")
    await progress.start(refs)
    error = "bad" if state is ItemState.FAILED else None
    await progress.end([Ended(ref=ref, state=state, code=error, error=error) for ref in refs], 1)


def housekeeper(servers: Servers, *, retention: float) -> Housekeeper:
    return Housekeeper(servers.pool, retention=retention, cache_retention=90 * 86400)


async def test_the_same_delivery_at_the_same_time_makes_one_job(servers: Servers) -> None:
    await Targets(servers.pool).ensure(COLLECTION)
    jobs = await asyncio.gather(
        *(accept(servers.pool, new_job(), [new_item()], key("k")) for _ in range(8))
    )
    assert len(set(jobs)) == 1
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 1
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.payloads") == 1


async def test_an_explicit_key_with_another_body_is_a_conflict_an_implicit_one_is_a_repeat(
    servers: Servers,
) -> None:
    await Targets(servers.pool).ensure(COLLECTION)
    first = await accept(servers.pool, new_job(), [new_item()], key("k", body=b"1"))
    with pytest.raises(IdempotencyConflictError):
        await accept(servers.pool, new_job(), [new_item()], key("k", body=b"2"))
    implicit = key("k", body=b"2", is_explicit=False)
    assert await accept(servers.pool, new_job(), [new_item()], implicit) == first


async def test_an_expired_key_is_free_again(servers: Servers) -> None:
    await Targets(servers.pool).ensure(COLLECTION)
    first = await accept(servers.pool, new_job(), [new_item()], key("k", window=-1))
    assert await accept(servers.pool, new_job(), [new_item()], key("k")) != first


async def test_a_job_of_rejects_only_is_finished_at_once(servers: Servers) -> None:
    await Targets(servers.pool).ensure(COLLECTION)
    job_id = await accept(servers.pool, new_job(), [new_item("bad")], None)
    job = await JobStore(servers.pool).get(job_id)
    assert job is not None
    assert (job.status, job.failed, job.finished_at is not None) == (JobStatus.FAILED, 1, True)


async def test_ending_an_item_twice_counts_once(servers: Servers) -> None:
    job_id = await accept_documents(servers, 3)
    refs = await released_refs(servers)
    for _ in range(2):
        await end(servers, refs[:2], ItemState.INDEXED)
    job = await JobStore(servers.pool).get(job_id)
    assert job is not None
    assert (job.succeeded, job.status) == (2, JobStatus.RUNNING)


async def test_many_workers_ending_one_job_finish_it_exactly_once(servers: Servers) -> None:
    await accept_documents(servers, 24)
    refs = await released_refs(servers)
    progress = Progress(servers.pool, StageName.INDEXER, "w")
    endings = await asyncio.gather(
        *(progress.end([Ended(ref=ref, state=ItemState.INDEXED)], 1) for ref in [*refs, *refs])
    )
    finished = [job for ending in endings for job in ending.jobs]
    assert [(job.status, job.succeeded) for job in finished] == [(JobStatus.SUCCEEDED, 24)]
    assert sum(len(ending.items) for ending in endings) == 24


async def test_retry_queues_the_failed_items_that_can_still_succeed(servers: Servers) -> None:
    job_id = await accept_documents(servers, 3)
    refs = await released_refs(servers)
    await end(servers, refs, ItemState.FAILED)
    target = await Targets(servers.pool).live(COLLECTION)
    assert target is not None
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence) VALUES ($1, $2, $3)",
        target.target, refs[0].document_id, refs[0].version + 1,
    )  # fmt: skip
    assert await JobControl(servers.pool).retry_failed(job_id) == 2
    assert await JobControl(servers.pool).retry_failed(job_id) == 0
    assert await states(servers, job_id) == ["failed", "queued", "queued"]
    await end(
        servers,
        [ref for ref in await released_refs(servers) if ref.release > refs[0].release],
        ItemState.INDEXED,
    )
    job = await JobStore(servers.pool).get(job_id)
    assert job is not None
    assert (job.status, job.succeeded, job.failed) == (JobStatus.PARTIAL, 2, 1)


async def test_cancel_ends_queued_items_and_leaves_released_ones(servers: Servers) -> None:
    job_id = await accept_documents(servers, 4)
    await servers.pool.execute("UPDATE webhook.job_items SET state = 'released' WHERE position = 0")
    cancellation = await JobControl(servers.pool).cancel(job_id)
    assert (cancellation.cancelled, cancellation.jobs) == (3, [])
    assert await states(servers, job_id) == ["released", "cancelled", "cancelled", "cancelled"]


async def test_pages_of_jobs_and_results_follow_each_other(servers: Servers) -> None:
    store = JobStore(servers.pool)
    ids = [await accept_documents(servers, 5) for _ in range(5)]
    first = await store.list(JobFilter(limit=3))
    second = await store.list(JobFilter(limit=3, after=JobCursor.parse(first.next or "")))
    assert [job.job_id for job in first.jobs + second.jobs] == ids[::-1]
    assert second.next is None
    page = await store.page(ids[0], 2, 2)
    assert page is not None
    assert ([result.position for result in page.results], page.next) == ([2, 3], 4)


async def test_old_jobs_are_deleted_with_their_texts_unless_live_or_dead_lettered(
    servers: Servers,
) -> None:
    live, dead, old = [
        await accept_documents(servers, 1, source=name) for name in ("live", "dead", "old")
    ]
    refs = {ref.job_id: ref for ref in await released_refs(servers)}
    await end(servers, [refs[live], refs[old]], ItemState.INDEXED)
    await end(servers, [refs[dead]], ItemState.FAILED)
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence, live_version) VALUES ('t', $1, $2, $2)",
        refs[live].document_id, refs[live].version,
    )  # fmt: skip
    await servers.pool.execute(
        "UPDATE webhook.jobs SET finished_at = finished_at - interval '40 days'"
    )
    await housekeeper(servers, retention=30 * 86400).clean_up(dt.datetime.now(dt.UTC).date())
    jobs = {
        str(row["job_id"]) for row in await servers.pool.fetch("SELECT job_id FROM webhook.jobs")
    }
    texts = {
        row["version"] for row in await servers.pool.fetch("SELECT version FROM webhook.payloads")
    }
    assert jobs == {dead}
    assert texts == {refs[live].version, refs[dead].version}


async def test_the_ends_of_old_crawls_are_deleted(servers: Servers) -> None:
    await servers.pool.execute(
        "INSERT INTO webhook.crawl_ends VALUES ('old', 'crawl.completed', now() - interval '40 days'), "
        "('new', 'crawl.completed', now() - interval '20 days')"
    )
    await housekeeper(servers, retention=30 * 86400).clean_up(dt.datetime.now(dt.UTC).date())
    assert await servers.pool.fetchval("SELECT array_agg(crawl_id) FROM webhook.crawl_ends") == [
        "new"
    ]


async def test_metrics_rows_are_in_day_partitions_which_the_retention_drops(
    servers: Servers,
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    keeper = housekeeper(servers, retention=2 * 86400)
    await keeper.clean_up(today)
    await keeper.clean_up(today)
    log = OperationLog(servers.pool)
    log.add(
        Operation(
            operation_type="embedding",
            operation_name="embed",
            duration_ms=1.5,
            metadata={"inputs": 3},
        )
    )
    await log.flush()
    row = await servers.pool.fetchrow(
        "SELECT operation_type, duration_ms, metadata FROM webhook.operation_metrics"
    )
    assert tuple(row) == ("embedding", 1.5, {"inputs": 3})

    await keeper.clean_up(today + dt.timedelta(days=10))
    names = {
        row["relname"]
        for row in await servers.pool.fetch("SELECT relname FROM pg_class WHERE relkind = 'r'")
    }
    assert partition_of(today + dt.timedelta(days=1)) not in names
    assert partition_of(today + dt.timedelta(days=11)) in names


async def test_concurrent_housekeepers_do_not_conflict(servers: Servers) -> None:
    keepers = [housekeeper(servers, retention=2 * 86400) for _ in range(4)]
    far = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=100)
    await asyncio.gather(*(keeper.clean_up(far) for keeper in keepers))


async def test_a_job_counts_its_chunks_and_those_that_were_not_sent_to_tei(
    servers: Servers,
) -> None:
    job_id = await accept_documents(servers, 4)
    indexed, unchanged, failed, last = await released_refs(servers)
    embedder, indexer = (
        Progress(servers.pool, stage, "w") for stage in (StageName.EMBEDDER, StageName.INDEXER)
    )
    await embedder.pass_on([indexed, failed, last], [(10, 4), (7, 7), (5, 0)])
    await indexer.end([Ended(ref=indexed, state=ItemState.INDEXED)], 1)
    await indexer.end([Ended(ref=unchanged, state=ItemState.UNCHANGED, chunks=3)], 1)
    await end(servers, [failed], ItemState.FAILED)
    ending = await indexer.end([Ended(ref=last, state=ItemState.INDEXED, chunks=5)], 1)
    assert [(job.chunks, job.inputs_saved) for job in ending.jobs] == [(18, 7)]
    job = await JobStore(servers.pool).get(job_id)
    assert job is not None
    assert (job.chunks, job.inputs_saved) == (18, 7)


async def test_the_schema_is_the_one_that_this_release_needs(servers: Servers) -> None:
    await check_schema(servers.pool)
