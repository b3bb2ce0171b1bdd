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
        url="https://a.example/x", source="api", lane=Lane.NORMAL, collection="docs", document_id=document_id, body=body
    )
    job = NewJob(job_id=str(uuid.uuid4()), kind=JobKind.INDEX_DOCUMENT, lane=Lane.NORMAL, collection="docs", timeout=60)
    await accept(servers.pool, job, [item], None)
    version: int = await servers.pool.fetchval("SELECT version FROM webhook.job_items WHERE job_id = $1", job.job_id)
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


async def queued(servers: Servers) -> dict[str, tuple[int, str, bytes]]:
    """Version, target and text of the items of reindex jobs, by document."""
    rows = await servers.pool.fetch(
        "SELECT i.document_id::text, i.version, i.target, p.body FROM webhook.job_items i "
        "JOIN webhook.jobs j USING (job_id) JOIN webhook.payloads p USING (version) WHERE j.kind = 'reindex_job'"
    )
    return {row["document_id"]: (row["version"], row["target"], row["body"]) for row in rows}


async def test_each_visible_document_comes_once_as_its_last_version_with_its_visible_text(servers: Servers) -> None:
    await Targets(servers.pool).ensure("docs")
    settled, unchanged, deleted = (str(uuid.uuid4()) for _ in range(3))
    versions = {id_: await accepted(servers, id_, id_.encode()) for id_ in (settled, unchanged, deleted)}
    for id_, version in versions.items():
        await commit(servers, id_, version)
    again = await accepted(servers, unchanged, b"the same")
    seen = Seen(document_id=unchanged, version=again, content_hash=HASH, fingerprint=FINGERPRINT)
    registry = Registry(servers.pool)
    assert await registry.mark_unchanged(TARGET, seen) is not None
    await servers.pool.execute("DELETE FROM webhook.payloads WHERE version = $1", again)  # as the chunker's result does
    await commit(servers, deleted, await accepted(servers, deleted, b""), is_live=False)

    recovery = Recovery(servers.pool, timeout=60)
    assert sorted(await asyncio.gather(*(recovery.requeue_lost(TARGET) for _ in range(4)))) == [0, 0, 0, 2]
    assert await queued(servers) == {
        settled: (versions[settled], TARGET, settled.encode()), unchanged: (again, TARGET, unchanged.encode()),
    }  # fmt: skip
    assert await registry.live_versions(TARGET, [settled, unchanged, deleted]) == {
        settled: versions[settled], unchanged: again, deleted: None,
    }  # fmt: skip
    later = Seen(document_id=settled, version=again + 10, content_hash=HASH, fingerprint=FINGERPRINT)
    assert await registry.mark_unchanged(TARGET, later) is None, "its points are not stored"


async def test_a_cancelled_rebuild_keeps_the_texts_of_what_is_visible(servers: Servers) -> None:
    await Targets(servers.pool).ensure("docs")
    document_id = str(uuid.uuid4())
    version = await accepted(servers, document_id, b"text")
    await commit(servers, document_id, version)
    await Recovery(servers.pool, timeout=60).requeue_lost(TARGET)
    job_id = await servers.pool.fetchval("SELECT job_id::text FROM webhook.jobs WHERE kind = 'reindex_job'")
    assert (await JobControl(servers.pool).cancel(job_id)).cancelled == 1
    assert await servers.pool.fetchval("SELECT body FROM webhook.payloads WHERE version = $1", version) == b"text"


async def test_a_target_without_documents_has_nothing_to_queue(servers: Servers) -> None:
    await Targets(servers.pool).ensure("docs")
    assert await Recovery(servers.pool, timeout=60).requeue_lost(TARGET) == 0
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 0
