"""The ingest service:

`python -m ingest`. Takes documents in, and releases them to the streams when elected.
"""

import asyncio

import aiohttp
import structlog

from ingest.dispatch.dispatcher import Dispatcher
from ingest.dispatch.election import DISPATCHER, Election
from ingest.documents.acceptance import Acceptance
from ingest.documents.document import Limits
from ingest.http.app import make_app
from ingest.http.openapi import OpenApi
from ingest.http.qdrant_check import check_qdrant
from ingest.http.routes.accept import AcceptApi, Rules
from ingest.http.routes.collections import CollectionsApi
from ingest.http.routes.dashboard import Dashboard
from ingest.http.routes.dead_letters import DeadLettersApi
from ingest.http.routes.documents import DocumentsApi
from ingest.http.routes.job_events import JobEventsApi
from ingest.http.routes.jobs import JobsApi
from ingest.http.routes.operations import OperationsApi
from ingest.http.routes.pipeline import PipelineApi
from ingest.http.routes.reindex import ReindexApi
from ingest.http.routes.search import SearchApi
from ingest.http.routes.streams import StreamsApi
from ingest.http.sessions import Sessions
from ingest.inspection.operator import Operator
from ingest.inspection.streams import StreamInspector
from ingest.inspection.throughput import Throughput
from ingest.inspection.watch import PipelineWatch
from ingest.jobs.callbacks import Callbacks
from ingest.jobs.control import JobControl
from ingest.jobs.new_targets import NewTargets
from ingest.jobs.store import JobStore
from ingest.settings import Settings
from ingest.upkeep.callbacks import CallbackSender, callback_session
from ingest.upkeep.housekeeping import Housekeeper
from ingest.upkeep.public_address import public_connector
from ingest.upkeep.signature import check_callback_secret
from shared.jobs.progress import Progress
from shared.pipeline.entries import Consumer
from shared.pipeline.stages import FIRST_STAGE, OPERATOR, StageName
from shared.runtime.process import Port, Process, run_process
from shared.runtime.recorder import Recorder
from shared.runtime.streams.gate import Gate, mark_of
from shared.runtime.streams.handover import HandOver
from shared.service.auth import Authenticator
from shared.service.health import HealthApi
from shared.service.http import UNCOMPRESSED
from shared.service.routes import add_routes
from shared.service.settings import IngestSettings, check_secret
from shared.tei.allowed import own_servers
from shared.tei.servers import check_any, tei_clients

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    ingest = settings.ingest
    check_secret("WEBHOOK_API_SECRET", ingest.api_secret, test_mode=settings.process.test_mode)
    check_secret("WEBHOOK_SECRET", ingest.secret, test_mode=settings.process.test_mode)
    check_callback_secret(ingest, test_mode=settings.process.test_mode)
    session = await process.stack.enter_async_context(
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), headers=UNCOMPRESSED)
    )
    _add_checks(process, settings, session)

    throughput = Throughput(process.redis)
    inspector = StreamInspector(process.redis, throughput)
    watch = PipelineWatch(
        inspector, process.redis, process.pool, process.metrics.pipeline, settings.runtime.lease
    )
    process.health.complete = watch.complete
    authenticator = Authenticator(ingest.api_secret, ingest.secret)
    sessions = Sessions(ingest.api_secret)
    app = make_app(authenticator, sessions, ingest.max_body_bytes)
    apis = [
        Dashboard(authenticator, sessions),
        *_document_apis(process, settings, authenticator),
        *_job_apis(process),
        *_inspection_apis(process, settings, inspector, watch),
        *_collection_apis(process, settings, session),
        SearchApi(session, ingest.search_url, ingest.api_secret, process.tracing),
    ]
    for api in (*apis, OpenApi([*map(type, apis), HealthApi])):
        add_routes(app, api)
    await process.listen(app, settings.process.host, Port(50108, ingest.ingest_port))

    sender = await _callback_sender(process, settings.ingest)
    log.info("Service pool initialized", search_url=ingest.search_url)
    process.health.is_ready = True
    election = Election(process.pool, DISPATCHER, process.instance)
    # A bug in one of the tasks ends the process, which is then restarted.
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_dispatcher(process, settings).run(election), name="dispatcher"),
            group.create_task(_housekeeper(process, settings).run(), name="housekeeper"),
            group.create_task(throughput.run(), name="throughput"),
            group.create_task(watch.run(), name="watch"),
            group.create_task(sender.run(), name="callbacks"),
        ]
        await process.stop.wait()
        for task in tasks:
            task.cancel()


def _document_apis(
    process: Process, settings: Settings, authenticator: Authenticator
) -> list[object]:
    collection = settings.collection.qdrant_collection
    acceptance = Acceptance(
        process.pool,
        process.metrics,
        collection=collection,
        timeout=settings.runtime.indexing_job_timeout,
        tracing=process.tracing,
    )
    return [
        AcceptApi(acceptance, authenticator, _rules(settings.ingest)),
        DocumentsApi(process.pool, acceptance, collection=collection),
    ]


def _job_apis(process: Process) -> list[object]:
    jobs = JobStore(process.pool)
    return [
        JobsApi(jobs, JobControl(process.pool), process.operations, process.stop),
        JobEventsApi(jobs, process.stop),
        DeadLettersApi(process.pool),
    ]


def _inspection_apis(
    process: Process, settings: Settings, inspector: StreamInspector, watch: PipelineWatch
) -> list[object]:
    return [
        StreamsApi(inspector, _operators(process, settings.runtime.lease)),
        PipelineApi(watch, process.pool, process.stop),
        OperationsApi(process.pool),
    ]


def _collection_apis(
    process: Process, settings: Settings, session: aiohttp.ClientSession
) -> list[object]:
    new_targets = NewTargets(process.pool, session, settings.tei, settings.chunker)
    return [
        CollectionsApi(process.pool, new_targets, default=settings.collection.qdrant_collection),
        ReindexApi(process.pool, new_targets, process.operations),
    ]


async def _callback_sender(process: Process, settings: IngestSettings) -> CallbackSender:
    session = callback_session(public_connector(allow_private=settings.callback_allow_private))
    await process.stack.enter_async_context(session)
    return CallbackSender(
        Callbacks(process.pool), session, settings.callback_secret, process.metrics
    )


def _rules(ingest: IngestSettings) -> Rules:
    return Rules(
        limits=Limits(max_document_bytes=ingest.max_document_bytes),
        max_body_bytes=ingest.max_body_bytes,
        deduplication_window=ingest.deduplication_window,
        may_call_private=ingest.callback_allow_private,
    )


def _housekeeper(process: Process, settings: Settings) -> Housekeeper:
    ingest = settings.ingest
    return Housekeeper(
        process.pool, retention=ingest.retention, cache_retention=ingest.cache_retention
    )


def _dispatcher(process: Process, settings: Settings) -> Dispatcher:
    entries, size = settings.runtime.stream_entries, settings.runtime.stream_bytes
    return Dispatcher(
        process.pool,
        process.deployment,
        {
            action: Gate(process.redis, stage, mark_of(stage, entries=entries, size=size))
            for action, stage in FIRST_STAGE.items()
        },
        process.metrics,
        size=settings.dispatch.worker_batch_size,
        stage_timeout=settings.runtime.indexing_job_timeout,
    )


def _operators(process: Process, lease: float) -> dict[StageName, Operator]:
    """For each stage, the consumer as which a person acts on pending entries."""
    name = OPERATOR + process.instance
    return {
        stage: Operator(
            process.redis,
            consumer := Consumer(stage=stage, name=name, lease=lease),
            Recorder(
                Progress(process.pool, stage, name), process.operations, process.metrics, stage
            ),
            HandOver(process.redis, consumer, process.metrics),
        )
        for stage in StageName
    }


def _add_checks(process: Process, settings: Settings, session: aiohttp.ClientSession) -> None:
    process.health.checks["qdrant"] = check_qdrant(session, settings.qdrant)
    process.health.checks["tei"] = check_any(
        tei_clients(session, settings.tei, own_servers(settings.tei, settings.tei.tei_url))
    )


def main() -> None:
    run_process("ingest", Settings, serve)


if __name__ == "__main__":
    main()
