"""What is queued when a store is lost, in Postgres alone."""

import asyncio
import uuid

import pytest

from indexer.recovery import Recovery
from ingest.jobs.accept import accept
from ingest.jobs.control import JobControl
from shared.jobs.model import JobKind, NewItem, NewJob
from shared.jobs.registry import Registration, Registry, Seen
from shared.jobs.targets import Targets
from shared.pipeline.lanes import Lane
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")

TARGET = "docs_1"
HASH, FINGERPRINT = b"hash", b"fingerprint"


async def accepted(servers: Servers, document_id: str, body: bytes) -> int:
    """Accept one document; its version."""
    item = NewItem(
        url="https://a.example/x",
        source="api",
        lane=Lane.NORMAL,
        collection="docs",
        document_id=document_id,
        body=body,
    )
    job = NewJob(
        job_id=str(uuid.uuid4()),
        kind=JobKind.INDEX_DOCUMENT,
        lane=Lane.NORMAL,
        collection="docs",
        timeout=60,
    )
    await accept(servers.pool, job, [item], None)
    version: int = await servers.pool.fetchval(
        "SELECT version FROM webhook.job_items WHERE job_id = $1", job.job_id
    )
    return version


async def commit(servers: Servers, document_id: str, version: int, *, is_live: bool = True) -> None:
    won = await Registry(servers.pool).commit(
        TARGET,
        [
            Registration(
                document_id=document_id, version=version, is_live=is_live, url="https://a.example/x",
                content_hash=HASH if is_live else None, fingerprint=FINGERPRINT if is_live else None,
            )
        ],
    )  # fmt: skip
    assert won == {document_id}


async def recovered(recovery: Recovery) -> None:
    """Queue slices until no recovery is open."""
    while await recovery.open():
        await recovery.queue_slice(TARGET)


async def queued(servers: Servers) -> dict[str, tuple[int, str, bytes]]:
    """Version, target and text of the items of reindex jobs, by document."""
    rows = await servers.pool.fetch(
        "SELECT i.document_id::text, i.version, i.target, p.body FROM webhook.job_items i "
        "JOIN webhook.jobs j USING (job_id) JOIN webhook.payloads p USING (version) WHERE j.kind = 'reindex_job'"
    )
    return {row["document_id"]: (row["version"], row["target"], row["body"]) for row in rows}


async def test_each_visible_document_comes_once_as_its_last_version_with_its_visible_text(
    servers: Servers,
) -> None:
    await Targets(servers.pool).ensure("docs")
    settled, unchanged, deleted = (str(uuid.uuid4()) for _ in range(3))
    versions = {
        id_: await accepted(servers, id_, id_.encode()) for id_ in (settled, unchanged, deleted)
    }
    for id_, version in versions.items():
        await commit(servers, id_, version)
    again = await accepted(servers, unchanged, b"the same")
    seen = Seen(document_id=unchanged, version=again, content_hash=HASH, fingerprint=FINGERPRINT)
    registry = Registry(servers.pool)
    assert await registry.mark_unchanged(TARGET, seen) is not None
    await servers.pool.execute(
        "DELETE FROM webhook.payloads WHERE version = $1", again
    )  # as the chunker's result does
    await commit(servers, deleted, await accepted(servers, deleted, b""), is_live=False)

    recoveries = [Recovery(servers.pool, timeout=60, rows=1) for _ in range(4)]
    assert sorted(await asyncio.gather(*(each.begin(TARGET) for each in recoveries))) == [
        False,
        False,
        False,
        True,
    ]
    await asyncio.gather(*(recovered(each) for each in recoveries))
    assert await recoveries[0].open() == []
    assert await queued(servers) == {
        settled: (versions[settled], TARGET, settled.encode()), unchanged: (again, TARGET, unchanged.encode()),
    }  # fmt: skip
    assert await registry.live_versions(TARGET, [settled, unchanged, deleted]) == {
        settled: versions[settled], unchanged: again, deleted: None,
    }  # fmt: skip
    later = Seen(
        document_id=settled, version=again + 10, content_hash=HASH, fingerprint=FINGERPRINT
    )
    assert await registry.mark_unchanged(TARGET, later) is None, "its points are not stored"


async def test_a_cancelled_rebuild_keeps_the_texts_of_what_is_visible(servers: Servers) -> None:
    await Targets(servers.pool).ensure("docs")
    document_id = str(uuid.uuid4())
    version = await accepted(servers, document_id, b"text")
    await commit(servers, document_id, version)
    recovery = Recovery(servers.pool, timeout=60)
    assert await recovery.begin(TARGET)
    await recovered(recovery)
    job_id = await servers.pool.fetchval(
        "SELECT job_id::text FROM webhook.jobs WHERE kind = 'reindex_job'"
    )
    assert (await JobControl(servers.pool).cancel(job_id)).cancelled == 1
    assert (
        await servers.pool.fetchval("SELECT body FROM webhook.payloads WHERE version = $1", version)
        == b"text"
    )


async def test_a_target_without_documents_has_nothing_to_queue(servers: Servers) -> None:
    await Targets(servers.pool).ensure("docs")
    recovery = Recovery(servers.pool, timeout=60)
    assert not await recovery.begin(TARGET)
    assert await recovery.queue_slice(TARGET) is None
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0


async def stored(servers: Servers, count: int) -> list[str]:
    """Visible documents, in the order of their ids."""
    ids = sorted(str(uuid.uuid4()) for _ in range(count))
    for id_ in ids:
        await commit(servers, id_, await accepted(servers, id_, b"text"))
    return ids


async def test_while_a_recovery_is_open_no_document_of_the_target_counts_as_unchanged(
    servers: Servers,
) -> None:
    await Targets(servers.pool).ensure("docs")
    first, last = await stored(servers, 2)
    recovery = Recovery(servers.pool, timeout=60, rows=1)
    await recovery.begin(TARGET)
    progress = await recovery.queue_slice(TARGET)
    assert progress is not None
    assert (progress.documents, progress.is_last) == (1, False)
    assert set(await queued(servers)) == {first}
    seen = Seen(document_id=last, version=10**6, content_hash=HASH, fingerprint=FINGERPRINT)
    assert await Registry(servers.pool).mark_unchanged(TARGET, seen) is None, (
        "its points are not stored yet"
    )
    await recovered(recovery)
    assert set(await queued(servers)) == {first, last}


async def test_a_collection_that_is_lost_again_during_its_recovery_comes_back_whole(
    servers: Servers,
) -> None:
    await Targets(servers.pool).ensure("docs")
    first, last = await stored(servers, 2)
    recovery = Recovery(servers.pool, timeout=60, rows=1)
    await recovery.begin(TARGET)
    await recovery.queue_slice(TARGET)
    assert not await recovery.begin(TARGET), "still missing, since no document has come through yet"
    await recovery.collections_back([TARGET])
    version: int = await servers.pool.fetchval(
        "SELECT version FROM webhook.job_items ORDER BY version LIMIT 1"
    )
    await servers.pool.execute("UPDATE webhook.job_items SET state = 'indexed'")
    await commit(servers, first, version + 100)
    assert await recovery.begin(TARGET), "it was there, and is missing again"
    await recovered(recovery)
    rows = await servers.pool.fetch(
        "SELECT document_id::text FROM webhook.job_items WHERE state = 'queued'"
    )
    assert sorted(row["document_id"] for row in rows) == [first, last]
