"""The embedder service: `python -m embedder`."""

from collections.abc import Callable, Sequence
from functools import partial

import aiohttp
import stamina
import structlog
from aiohttp import web

from embedder.batcher import EmbeddingBatcher
from embedder.cache import EmbeddingCache, Recipe
from embedder.compatibility import PROBE, ChunkShape, Served, check_same, check_targets, introduce
from embedder.isolation import EmbeddingCall, Practice
from embedder.packing import Capacity, capacity_of
from embedder.servers import Common, Introduce, Server, Servers
from embedder.settings import Settings
from embedder.stage import EmbedStage, VectorSource
from shared.errors import DependencyError
from shared.jobs.operations import Operation
from shared.jobs.targets import Targets
from shared.runtime.consumer import make_failures, run_stage
from shared.runtime.process import Port, Process, run_process
from shared.streams import StageName
from shared.tei import TeiClient
from shared.tei_servers import check_any, first_success, tei_clients
from shared.tokenizer import load_tokenizer

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    await process.listen(web.Application(), settings.process.host, Port(50110, settings.embedder.embedder_port))
    # Not bounded by connections: the permits of each server are the bound, and /health must not wait behind them.
    session = await process.stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    clients = tei_clients(session, settings.tei)
    process.health.checks["tei"] = check_any(clients)
    tokenizer = load_tokenizer(settings.chunker.tokenizer)
    shape = ChunkShape(max_tokens=settings.chunker.max_chunk_tokens, probe_ids=tokenizer.encode(PROBE).ids)
    served = await process.unless_stopped(_first_served(clients, shape))
    targets = Targets(process.pool)
    check_targets(await targets.settled(), served)
    common = Common(practice=Practice(dimension=served.dimension), metrics=process.metrics, observe=observer(process))

    def introduction(client: TeiClient) -> Introduce:
        async def meet() -> Capacity:
            met = await introduce(client, shape)
            check_same(served, met)
            return capacity_of(met.info, settings.tei.max_concurrent_requests)

        return meet

    servers = await process.stack.enter_async_context(
        Servers([Server(client.name, client, introduction(client), common) for client in clients], served.dimension)
    )
    recipe = Recipe(model=served.info.model_id, revision=served.info.model_sha, dimension=served.dimension)
    cache = await process.stack.enter_async_context(EmbeddingCache(process.pool, recipe, process.metrics))
    batcher = await process.stack.enter_async_context(EmbeddingBatcher(servers, keep=cache.put))
    failures = make_failures(StageName.EMBEDDER, settings.runtime)
    stage = EmbedStage(VectorSource(batcher, cache), targets, served.info.model_id, failures, settings.runtime)
    log.info("Service pool initialized", model=served.info.model_id, dimension=served.dimension, servers=len(clients))
    await run_stage(process, stage, settings.runtime, {"tei": servers.probe})


@stamina.retry(on=DependencyError, attempts=None, timeout=None, wait_initial=0.2, wait_max=2.0)
async def _first_served(clients: Sequence[TeiClient], shape: ChunkShape) -> Served:
    """The first server to answer says which model it is.

    A port opens only after warm-up, so the first tries may find nobody there.
    """
    return await first_success([partial(introduce, client, shape) for client in clients])


def observer(process: Process) -> Callable[[EmbeddingCall], None]:
    """Notes each TEI request in the metrics and as a row of type `embedding`."""
    seconds = process.metrics.request_seconds.labels("tei", "embed")

    def observe(call: EmbeddingCall) -> None:
        seconds.observe(call.duration_s)
        process.operations.add(
            Operation(
                operation_type="embedding", operation_name="embed", duration_ms=call.duration_s * 1000,
                success=call.error is None, error_message=str(call.error) if call.error else None,
                metadata={"inputs": call.inputs, "tokens": call.tokens},
            )
        )  # fmt: skip

    return observe


def main() -> None:
    run_process("embedder", Settings, serve)


if __name__ == "__main__":
    main()
