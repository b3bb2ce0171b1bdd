"""The ingest service: `python -m ingest`. Takes documents in, and releases them to the streams when elected."""

import asyncio

import aiohttp
import structlog

from ingest.acceptance import Acceptance
from ingest.api import AcceptApi
from ingest.app import SearchForwarder, make_app
from ingest.dead_letters_api import DeadLettersApi
from ingest.dispatch import Dispatcher
from ingest.document import Limits
from ingest.housekeeping import Housekeeper
from ingest.jobs_api import JobsApi
from ingest.settings import Settings
from ingest.streams_api import StreamsApi
from shared.auth import Authenticator
from shared.inspection import StreamInspector
from shared.jobs.control import JobControl
from shared.jobs.store import JobStore
from shared.qdrant import check_qdrant, make_client
from shared.runtime.gate import Gate, marks
from shared.runtime.process import Port, Process, run_process
from shared.settings import check_secret
from shared.streams import StageName
from shared.tei import TeiClient
from shared.throughput import Throughput

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    ingest = settings.ingest
    check_secret("WEBHOOK_API_SECRET", ingest.api_secret, test_mode=settings.process.test_mode)
    check_secret("WEBHOOK_SECRET", ingest.secret, test_mode=settings.process.test_mode)
    session = await process.stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
    await _add_checks(process, settings, session)

    authenticator = Authenticator(ingest.api_secret, ingest.secret)
    app = make_app(authenticator, ingest.max_body_bytes)
    acceptance = Acceptance(
        process.pool,
        process.metrics,
        collection=settings.collection.qdrant_collection,
        timeout=settings.runtime.indexing_job_timeout,
    )
    limits = Limits(max_document_bytes=ingest.max_document_bytes)
    AcceptApi(acceptance, authenticator, limits, window=ingest.deduplication_window).add_routes(app)
    JobsApi(JobStore(process.pool), JobControl(process.pool), process.operations, process.stop).add_routes(app)
    throughput = Throughput(process.redis)
    StreamsApi(StreamInspector(process.redis, throughput)).add_routes(app)
    DeadLettersApi(process.pool).add_routes(app)
    app.router.add_post("/api/search", SearchForwarder(session, ingest.search_url).post_search)
    await process.listen(app, settings.process.host, Port(50108, ingest.ingest_port))

    log.info("Service pool initialized", search_url=ingest.search_url)
    process.health.is_ready = True
    async with asyncio.TaskGroup() as group:  # a bug in one of them ends the process, which is then restarted
        tasks = [
            group.create_task(_dispatcher(process, settings).run(), name="dispatcher"),
            group.create_task(Housekeeper(process.pool, ingest.retention).run(), name="housekeeper"),
            group.create_task(throughput.run(), name="throughput"),
        ]
        await process.stop.wait()
        for task in tasks:
            task.cancel()


def _dispatcher(process: Process, settings: Settings) -> Dispatcher:
    mark = marks(settings.runtime.stream_entries, settings.runtime.stream_bytes)[StageName.CHUNKER]
    return Dispatcher(
        process.pool,
        process.redis,
        Gate(process.redis, StageName.CHUNKER, mark),
        process.metrics,
        size=settings.dispatch.worker_batch_size,
        stage_timeout=settings.runtime.indexing_job_timeout,
    )


async def _add_checks(process: Process, settings: Settings, session: aiohttp.ClientSession) -> None:
    client = make_client(settings.qdrant)
    process.stack.push_async_callback(client.close)
    process.health.checks["qdrant"] = check_qdrant(client)
    tei = TeiClient(session, settings.tei.tei_url, api_key=settings.tei.tei_api_key)
    process.health.checks["tei"] = tei.health


def main() -> None:
    run_process("ingest", Settings, serve)


if __name__ == "__main__":
    main()
