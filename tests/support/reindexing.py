"""Reindexes without the stages: a real dispatcher, and the rows that stages would write."""

import uuid

from ingest.dispatch.dispatcher import Dispatcher
from ingest.jobs.accept import accept
from ingest.jobs.reindexes import Reindexes, ReindexState
from shared.jobs.model import JobKind, NewItem, NewJob
from shared.jobs.progress import Ended, Progress
from shared.jobs.registry import Registration, Registry
from shared.jobs.targets import Targets, TargetSettings
from shared.pipeline.ids import document_id
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, DocumentRef, decode_header
from shared.pipeline.outcomes import ItemState
from shared.pipeline.stages import StageName
from tests.support.documents import COLLECTION
from tests.support.stage_harness import Servers, entries_of, make_dispatcher


async def send(servers: Servers, *names: str, action: Action = Action.INDEX) -> None:
    """Accept a version of each document, or its removal."""
    await Targets(servers.pool).ensure(COLLECTION)
    job = NewJob(
        job_id=str(uuid.uuid4()),
        kind=JobKind.INDEX_BATCH,
        lane=Lane.NORMAL,
        collection=COLLECTION,
        timeout=600,
    )
    items = [
        NewItem(
            url=f"https://example.com/{name}", source=job.job_id, lane=Lane.NORMAL,
            collection=COLLECTION, document_id=document_id(COLLECTION, name), action=action,
            body=b"{}" if action is Action.INDEX else None,
        )
        for name in names
    ]  # fmt: skip
    await accept(servers.pool, job, items, None)


async def index(servers: Servers, *names: str, action: Action = Action.INDEX) -> None:
    """Send documents through the whole pipeline."""
    await send(servers, *names, action=action)
    await turn(await elected(servers))
    await work(servers)


async def begin(servers: Servers) -> str:
    """Start a reindex of the collection; the new target."""
    targets = Targets(servers.pool)
    made = await targets.create(
        COLLECTION, TargetSettings(), live=False, model=None, dimension=None
    )
    assert await Reindexes(servers.pool).start(made.target, is_rollback=False, skip_failed=False)
    return made.target


async def elected(servers: Servers) -> Dispatcher:
    """A dispatcher that has just been elected."""
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    return dispatcher


async def turn(dispatcher: Dispatcher) -> None:
    """What a dispatcher does between two looks at the election."""
    await dispatcher.check_marker()
    await dispatcher.reindex()
    while await dispatcher.release_some():
        pass


async def work(servers: Servers, *, failing: str | None = None) -> None:
    """Handle all entries as the stages would: decide in the registry, then end the item."""
    for target, ref in await taken(servers):
        await finish(
            servers, target, ref, is_failing=failing is not None and ref.url.endswith(failing)
        )


async def taken(servers: Servers) -> list[tuple[str, DocumentRef]]:
    """Take everything out of the streams: the documents with their targets."""
    found = []
    for stream in [*StageName.CHUNKER.streams, *StageName.INDEXER.streams]:
        for _, fields in await entries_of(servers, stream):
            header = decode_header(fields[b"h"])
            found += [(header.target, ref) for ref in header.documents]
        await servers.redis.delete(stream)
    return found


async def finish(
    servers: Servers, target: str, ref: DocumentRef, *, is_failing: bool = False
) -> None:
    """End one document as the last stage does."""
    is_live = ref.action is Action.INDEX
    progress = Progress(servers.pool, StageName.INDEXER, "worker")
    if is_failing:
        await progress.end([Ended(ref=ref, state=ItemState.FAILED, code="bad", error="broken")], 1)
        return
    registration = Registration(
        document_id=ref.document_id,
        version=ref.version,
        is_live=is_live,
        url=ref.url,
        content_hash=b"h" * is_live,
    )
    won = await Registry(servers.pool).commit(target, [registration])
    state = ItemState.INDEXED if is_live else ItemState.DELETED
    await progress.end([Ended(ref=ref, state=state if won else ItemState.SUPERSEDED)], 1)


async def decided(servers: Servers, target: str) -> dict[str, tuple[int, bool]]:
    """Fence, and whether it is visible, of each document by the end of its URL."""
    rows = await servers.pool.fetch(
        "SELECT url, fence, live_version FROM webhook.documents WHERE target = $1", target
    )
    return {
        row["url"].rpartition("/")[2]: (row["fence"], row["live_version"] is not None)
        for row in rows
    }


async def live_target(servers: Servers) -> str:
    live = await Targets(servers.pool).live(COLLECTION)
    assert live is not None
    return live.target


async def state_of(servers: Servers) -> ReindexState:
    (state,) = await Reindexes(servers.pool).states(COLLECTION)
    return state
