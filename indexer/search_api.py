"""The search API put together: on the indexer's own port, and by `python -m indexer.search_api` without the stage."""

import aiohttp
from aiohttp import web
from qdrant_client import AsyncQdrantClient

from indexer.search import SearchEngine, SearchOptions
from indexer.search_routes import add_search_routes
from indexer.settings import Settings
from indexer.visibility import RegistryVisibility
from shared.auth import Authenticator, Verdict
from shared.qdrant import check_qdrant, make_client
from shared.runtime.process import Port, Process, run_process
from shared.settings import Secret, check_secret
from shared.tei import TeiClient, Vectors

DEFAULT_PORT = 50111  # the indexer's


async def listen(process: Process, settings: Settings) -> AsyncQdrantClient:
    """Serve searches on the process's port; returns its Qdrant client, which closes with the process."""
    check_secret("WEBHOOK_API_SECRET", settings.ingest.api_secret, test_mode=settings.process.test_mode)
    client = make_client(settings.qdrant)
    process.stack.push_async_callback(client.close)
    process.health.checks["qdrant"] = check_qdrant(client)
    app = await _make_app(process, client, settings)
    await process.listen(app, settings.process.host, Port(DEFAULT_PORT, settings.indexer.indexer_port))
    return client


async def serve(process: Process, settings: Settings) -> None:
    """Serve searches until the process is told to stop."""
    await listen(process, settings)
    process.health.is_ready = True
    await process.stop.wait()


async def _make_app(process: Process, client: AsyncQdrantClient, settings: Settings) -> web.Application:
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


def main() -> None:
    run_process("search", Settings, serve)


if __name__ == "__main__":
    main()
