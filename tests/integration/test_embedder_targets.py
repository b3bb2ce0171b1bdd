"""An embedder whose targets have servers of their own: the trouble of one is not that of others."""

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest

from local.ports import free_port
from shared.jobs.targets import Targets, TargetSettings
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Chunk, ChunkedDocument, Page, decode_header
from shared.pipeline.outcomes import Emit, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Document
from tests.support.local_stack import bare_environ
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    depth,
    entries_of,
    release_all,
    running_worker,
)
from tests.support.tei_stand_in import StandInSettings, TeiStandIn
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

CHUNKED = ChunkedDocument(page=Page(), content_hash=b"c", fingerprint=b"f", chunks=())


@contextlib.asynccontextmanager
async def running_embedder(servers: Servers, tei_url: str, **settings: str) -> AsyncIterator[None]:
    """Run the service until the block ends; it must end well."""
    environ = bare_environ(
        WEBHOOK_REDIS_URL=servers.redis_url, WEBHOOK_DATABASE_URL=servers.database_url,
        WEBHOOK_TEI_URL=tei_url, WEBHOOK_TEI_ALLOWED="127.0.0.1", WEBHOOK_EMBEDDER_PORT="0",
        **settings,
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "embedder", env=environ)
    try:
        yield
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 40) == 0


async def new_target(servers: Servers, tei_url: str | None = None) -> str:
    """The collection of a new target that is served by `tei_url`, by default by that of all."""
    collection = f"docs-{uuid.uuid4().hex[:8]}"
    await Targets(servers.pool).create(
        collection, TargetSettings(tei_url=tei_url), live=True, model=None, dimension=None
    )
    return collection


async def chunk(servers: Servers, collection: str, documents: int) -> None:
    """Put so many documents with one chunk each into the streams of the embedder."""

    async def handle(document: Document) -> Outcome:
        text = f"{collection} {document.ref.url}"
        chunks = (Chunk(text=text, prefix="", headings=(), start=0, end=len(text), tokens=9),)
        return Emit(msgspec.structs.replace(CHUNKED, chunks=chunks), 1)

    await accept_documents(servers, documents, collection=collection, source=collection)
    await release_all(servers)
    async with running_worker(servers, handle):
        await wait_until(lambda: is_empty(servers, StageName.CHUNKER), description="all chunked")


async def is_empty(servers: Servers, stage: StageName) -> bool:
    return not await depth(servers, stage)


async def embedded(servers: Servers, collection: str) -> int:
    """How many documents of a collection the embedder has passed on."""
    headers = [
        decode_header(fields[b"h"])
        for lane in Lane
        for _, fields in await entries_of(servers, StageName.INDEXER.stream(lane))
    ]
    return sum(len(h.documents) for h in headers if h.target == f"{collection}_1")


async def costs(servers: Servers, collection: str) -> set[tuple[str, int]]:
    rows = await servers.pool.fetch(
        "SELECT state, attempts FROM webhook.job_items WHERE collection = $1", collection
    )
    return {(row["state"], row["attempts"]) for row in rows}


async def test_targets_with_servers_of_their_own_are_embedded_while_the_default_ones_refuse(
    servers: Servers,
) -> None:
    async with TeiStandIn(StandInSettings()) as own:
        default, other = await new_target(servers), await new_target(servers, own.url)
        await chunk(servers, default, 40)
        await chunk(servers, other, 40)
        async with running_embedder(servers, f"http://127.0.0.1:{free_port()}"):
            await wait_until(
                lambda: all_embedded(servers, other, 40),
                timeout=100,
                description="the documents of the target whose servers answer",
            )
    assert await embedded(servers, default) == 0
    assert {attempts for _, attempts in await costs(servers, default)} == {0}


async def test_a_target_whose_servers_never_answer_delays_no_other(servers: Servers) -> None:
    async with TeiStandIn(StandInSettings()) as good, TeiStandIn(StandInSettings()) as silent:
        silent.hold()
        stuck, other = await new_target(servers, silent.url), await new_target(servers)
        await chunk(servers, stuck, 240)
        await chunk(servers, other, 40)
        async with running_embedder(servers, good.url):
            await wait_until(
                lambda: all_embedded(servers, other, 40),
                timeout=100,
                description="the documents of the other target",
            )
        assert await embedded(servers, stuck) == 0
        assert {attempts for _, attempts in await costs(servers, stuck)} == {0}


async def all_embedded(servers: Servers, collection: str, documents: int) -> bool:
    return await embedded(servers, collection) == documents
