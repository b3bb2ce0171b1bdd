"""The indexer service: `python -m indexer`. Serves the search API as well."""

import structlog

from indexer.keyword import KeywordParameters
from indexer.search_api import DEFAULT_PORT, make_search_app
from indexer.settings import Settings
from indexer.stage import IndexStage
from shared.qdrant import check_qdrant, make_client
from shared.runtime.consumer import make_failures, run_stage
from shared.runtime.process import Port, Process, run_process
from shared.settings import check_secret
from shared.streams import StageName

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    check_secret("WEBHOOK_API_SECRET", settings.ingest.api_secret, test_mode=settings.process.test_mode)
    client = make_client(settings.qdrant)
    process.stack.push_async_callback(client.close)
    process.health.checks["qdrant"] = check_qdrant(client)
    app = await make_search_app(process, client, settings)
    await process.listen(app, settings.process.host, Port(DEFAULT_PORT, settings.indexer.indexer_port))
    keyword = KeywordParameters(k1=settings.search.bm25_k1, b=settings.search.bm25_b)
    failures = make_failures(StageName.INDEXER, settings.runtime)
    stage = IndexStage(client, process.pool, keyword, process.operations, failures, settings.runtime)
    log.info("Service pool initialized", qdrant=settings.qdrant.qdrant_url)
    await run_stage(process, stage, settings.runtime)


def main() -> None:
    run_process("indexer", Settings, serve)


if __name__ == "__main__":
    main()
