"""The search API put together: on the indexer's own port, and by `python -m indexer.search_api`
without the stage.
"""

import asyncio
from collections.abc import Sequence

import aiohttp
from aiohttp import web
from qdrant_client import AsyncQdrantClient

from indexer.qdrant.client import check_qdrant, handshake, make_client
from indexer.search.embedding.query_cache import QueryCache
from indexer.search.embedding.query_embedding import QueryEmbedder
from indexer.search.embedding.query_servers import check_query_servers
from indexer.search.embedding.target_embedding import TargetEmbedder
from indexer.search.keywords.keyword_index import KeywordIndex, QdrantKeywordIndex
from indexer.search.keywords.rank_bm25_index import RankBm25Index
from indexer.search.point_reader import PointReader
from indexer.search.routes import add_search_routes
from indexer.search.service import SearchEngine, SearchOptions
from indexer.search.visibility import RegistryVisibility
from indexer.search.window import EmbedText, Sources
from indexer.settings import Settings
from shared.runtime.process import Port, Process, run_process
from shared.service.auth import Authenticator, Verdict
from shared.service.http import UNCOMPRESSED
from shared.service.settings import KeywordEngine, SearchSettings, Secret, check_secret
from shared.tei.allowed import TeiServer, own_servers
from shared.tei.servers import check_any, tei_clients

DEFAULT_PORT = 50111  # the indexer's


async def listen(process: Process, settings: Settings) -> AsyncQdrantClient:
    """Serve searches on the process's port; returns its Qdrant client, which closes with the
    process.
    """
    check_secret(
        "WEBHOOK_API_SECRET", settings.search.api_secret, test_mode=settings.process.test_mode
    )
    client = make_client(settings.qdrant, process.metrics.request_observer("qdrant"))
    process.stack.push_async_callback(client.close)
    await handshake(client)
    process.health.checks["qdrant"] = check_qdrant(client)
    app = await _make_app(process, client, settings)
    await process.listen(
        app, settings.process.host, Port(DEFAULT_PORT, settings.indexer.indexer_port)
    )
    return client


async def serve(process: Process, settings: Settings) -> None:
    """Serve searches until the process is told to stop."""
    await listen(process, settings)
    process.health.is_ready = True
    await process.stop.wait()


async def _make_app(
    process: Process, client: AsyncQdrantClient, settings: Settings
) -> web.Application:
    session = await process.stack.enter_async_context(aiohttp.ClientSession(headers=UNCOMPRESSED))
    await check_query_servers(session, settings.tei)
    own = own_servers(settings.tei, settings.tei.of_queries)
    process.health.checks["tei"] = check_any(tei_clients(session, settings.tei, own))
    visibility = RegistryVisibility(process.pool)
    observe = process.metrics.request_seconds.labels("tei", "query").observe

    def embedder(servers: Sequence[TeiServer]) -> EmbedText:
        return QueryCache(QueryEmbedder(tei_clients(session, settings.tei, servers), observe))

    sources = Sources(
        points=PointReader(client),
        keyword=_keyword_index(process, client, visibility, settings.search),
        embed_query=TargetEmbedder(visibility.seen, embedder, settings.tei),
    )
    options = SearchOptions(
        default_collection=settings.collection.qdrant_collection, rrf_k=settings.search.rrf_k
    )
    authenticator = Authenticator(settings.search.api_secret, Secret())

    def is_authentic(request: web.Request) -> bool:
        return authenticator.check_bearer(request.headers.get("Authorization")) is Verdict.ALLOWED

    app = web.Application(client_max_size=1024 * 1024)
    engine = SearchEngine(sources, visibility, options)
    add_search_routes(app, engine, is_authentic, process.metrics.search.observe)
    return app


def _keyword_index(
    process: Process,
    client: AsyncQdrantClient,
    visibility: RegistryVisibility,
    settings: SearchSettings,
) -> KeywordIndex:
    if settings.keyword_index is KeywordEngine.QDRANT:
        return QdrantKeywordIndex(PointReader(client))
    index = RankBm25Index(client, visibility, k1=settings.bm25_k1, b=settings.bm25_b)
    process.stack.callback(asyncio.create_task(index.run(), name="keyword index").cancel)
    return index


def main() -> None:
    run_process("search", Settings, serve)


if __name__ == "__main__":
    main()
