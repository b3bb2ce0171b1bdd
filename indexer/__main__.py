"""The indexer service: `python -m indexer`. Serves the search API as well."""

import asyncio

import structlog

from indexer.keyword import KeywordParameters
from indexer.qdrant.store import PointStore
from indexer.scrubber import Scrubber, Scrubs
from indexer.search_api import listen
from indexer.settings import Settings
from indexer.stage import IndexStage
from shared.jobs.registry import Registry
from shared.jobs.targets import Targets
from shared.pipeline.stages import StageName
from shared.runtime.consumer import make_failures, run_stage
from shared.runtime.process import Process, run_process

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    client = await listen(process, settings)
    keyword = KeywordParameters(k1=settings.search.bm25_k1, b=settings.search.bm25_b)
    failures = make_failures(StageName.INDEXER, settings.runtime)
    stage = IndexStage(client, process.pool, keyword, process.operations, failures, settings.runtime)
    process.stack.callback(asyncio.create_task(stage.guard.run(), name="store guard").cancel)
    log.info("Service pool initialized", qdrant=settings.qdrant.qdrant_url)
    scrubber = Scrubber(Registry(process.pool), PointStore(client))
    scrubs = Scrubs(scrubber, Targets(process.pool), process.metrics.scrubber, settings.indexer.scrub_interval)
    scrubbing = asyncio.create_task(scrubs.run(), name="scrubber")
    process.stack.callback(scrubbing.cancel)
    await run_stage(process, stage, settings.runtime)


def main() -> None:
    run_process("indexer", Settings, serve)


if __name__ == "__main__":
    main()
