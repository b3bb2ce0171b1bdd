"""The indexer service: `python -m indexer`. Serves the search API as well."""

import asyncio

import structlog

from indexer.fence import Fence
from indexer.keyword import KeywordParameters
from indexer.qdrant.store import PointStore
from indexer.recovery import Recovery
from indexer.scrubber import Scrubber, Scrubs
from indexer.search_api import listen
from indexer.settings import Settings
from indexer.stage import IndexStage
from indexer.store_guard import StoreGuard
from indexer.target_collections import TargetCollections
from indexer.verifier import Verifier
from shared.jobs.registry import Registry
from shared.jobs.targets import Targets
from shared.pipeline.lanes import Lane
from shared.runtime.assembly import run_stage
from shared.runtime.process import Process, run_process

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    client = await listen(process, settings)
    registry, targets, store = Registry(process.pool), Targets(process.pool), PointStore(client)
    guard = StoreGuard(
        client, targets, Recovery(process.pool, settings.runtime.indexing_job_timeout)
    )
    process.stack.callback(asyncio.create_task(guard.run(), name="store guard").cancel)
    log.info("Service pool initialized", qdrant=settings.qdrant.qdrant_url)
    scrubs = Scrubs(
        Scrubber(registry, store),
        Verifier(process.pool, store, settings.runtime.indexing_job_timeout),
        targets,
        process.metrics.scrubber,
        settings.indexer.scrub_interval,
    )
    process.stack.callback(asyncio.create_task(scrubs.run(), name="scrubber").cancel)
    keyword = KeywordParameters(k1=settings.search.bm25_k1, b=settings.search.bm25_b)
    stage = IndexStage(
        TargetCollections(client, guard, keyword),
        {lane: Fence(registry, store.of(lane)) for lane in Lane},
        process.operations,
    )
    await run_stage(process, stage, settings.runtime)


def main() -> None:
    run_process("indexer", Settings, serve)


if __name__ == "__main__":
    main()
