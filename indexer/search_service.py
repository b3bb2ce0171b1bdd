"""The search API put together, for the indexer's own port and for `python -m indexer.search_api`."""

import aiohttp
from aiohttp import web
from qdrant_client import AsyncQdrantClient

from indexer.search import SearchEngine, SearchOptions
from indexer.search_api import add_search_routes
from indexer.settings import Settings
from indexer.visibility import RegistryVisibility
from shared.auth import Authenticator, Verdict
from shared.runtime.process import Process
from shared.settings import Secret
from shared.tei import TeiClient, Vectors


async def make_search_app(process: Process, client: AsyncQdrantClient, settings: Settings) -> web.Application:
    """An application with POST /api/search; opens what it needs on the process's stack."""
    session = await process.stack.enter_async_context(aiohttp.ClientSession())
    tei = TeiClient(session, settings.tei.tei_url, api_key=settings.tei.tei_api_key, timeout_s=settings.tei.tei_timeout)
    process.health.checks["tei"] = tei.health

    async def embed_query(text: str) -> Vectors:
        vectors: Vectors = (await tei.embed([text]))[0]
        return vectors

    options = SearchOptions(default_collection=settings.collection.qdrant_collection, rrf_k=settings.search.rrf_k)
    engine = SearchEngine(client, RegistryVisibility(process.pool), embed_query, options)
    authenticator = Authenticator(settings.ingest.api_secret, Secret())

    def is_authentic(request: web.Request) -> bool:
        return authenticator.check_bearer(request.headers.get("Authorization")) is Verdict.ALLOWED

    app = web.Application(client_max_size=1024 * 1024)
    add_search_routes(app, engine, is_authentic)
    return app
