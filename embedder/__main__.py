"""The embedder service: `python -m embedder`."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import aiohttp
import stamina
import structlog
from aiohttp import web

from embedder.batcher import EmbeddingBatcher
from embedder.cache import EmbeddingCache, Recipe
from embedder.compatibility import ChunkShape, Served, check_compatible, check_same, check_targets, introduce
from embedder.isolation import EmbeddingCall, Practice
from embedder.models import Model, Models
from embedder.packing import Capacity, capacity_of
from embedder.servers import Common, Introduce, Server, Servers
from embedder.settings import Settings
from embedder.stage import EmbedStage
from embedder.vectors import VectorSource
from shared.jobs.operations import Operation
from shared.jobs.targets import Targets
from shared.runtime.assembly import run_stage
from shared.runtime.process import Port, Process, run_process
from shared.service.errors import DependencyError
from shared.service.http import UNCOMPRESSED
from shared.service.settings import TeiSettings
from shared.tei.client import TeiClient
from shared.tei.servers import check_any, first_success, tei_clients

log = structlog.get_logger()

_INTRODUCTION_S = 10.0  # a model that is still loading is asked again


async def serve(process: Process, settings: Settings) -> None:
    await process.listen(web.Application(), settings.process.host, Port(50110, settings.embedder.embedder_port))
    # Not bounded by connections: the permits of each server are the bound, and /health must not wait behind them.
    session = await process.stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=UNCOMPRESSED)
    )
    process.health.checks["tei"] = check_any(tei_clients(session, settings.tei))
    opened = _Opened(process, session)
    models = Models(opened.open_model, settings.tei, settings.chunker)
    served = (await process.unless_stopped(_first_model(models))).served
    targets = Targets(process.pool)
    check_targets(await targets.settled(), served)
    stage = EmbedStage(models, targets)
    log.info(
        "Service pool initialized", model=served.info.model_id, dimension=served.dimension,
        servers=len(settings.tei.tei_urls),
    )  # fmt: skip
    await run_stage(process, stage, settings.runtime, {"tei": opened.first.probe})


@stamina.retry(on=DependencyError, attempts=None, timeout=None, wait_initial=0.2, wait_max=2.0)
async def _first_model(models: Models) -> Model:
    """The model of WEBHOOK_TEI_URL, as soon as one of its servers answers.

    A port opens only after warm-up, so the first tries may find nobody there.
    """
    return await models.open_default()


class _Opened:
    """Opens models for the life of the process."""

    def __init__(self, process: Process, session: aiohttp.ClientSession) -> None:
        self._process = process
        self._session = session
        self._observe = observer(process)
        self._servers: list[Servers] = []

    @property
    def first(self) -> Servers:
        """Those of WEBHOOK_TEI_URL, which are opened first."""
        return self._servers[0]

    async def open_model(self, tei: TeiSettings, shape: ChunkShape) -> Model:
        """Meet the servers of one model: the first to answer says which one it is."""
        process = self._process
        clients = tei_clients(self._session, tei)
        served = await _first_served(clients)
        check_compatible(served, shape)
        shapes = {shape}
        common = Common(practice=Practice(dimension=served.dimension), metrics=process.metrics, observe=self._observe)

        def introduction(client: TeiClient) -> Introduce:
            async def meet() -> Capacity:
                met = await introduce(client)
                check_same(served, met)
                for each in shapes:
                    check_compatible(met, each)
                return capacity_of(met.info, tei.max_concurrent_requests)

            return meet

        servers = Servers([Server(c.name, c, introduction(c), common) for c in clients], served.dimension)
        recipe = Recipe(model=served.info.model_id, revision=served.info.model_sha, dimension=served.dimension)
        async with contextlib.AsyncExitStack() as stack:  # what was cut off half way is closed again
            await stack.enter_async_context(servers)
            cache = await stack.enter_async_context(EmbeddingCache(process.pool, recipe, process.metrics))
            batcher = await stack.enter_async_context(EmbeddingBatcher(servers, keep=cache.put))
            process.stack.push_async_exit(stack.pop_all())
        self._servers.append(servers)
        return Model(served=served, vectors=VectorSource(batcher, cache), shapes=shapes)


async def _first_served(clients: Sequence[TeiClient]) -> Served:
    """What the first server to answer says of itself."""
    try:
        async with asyncio.timeout(_INTRODUCTION_S):
            return await first_success([partial(introduce, client) for client in clients])
    except TimeoutError as error:
        raise DependencyError("tei", f"no server answers within {_INTRODUCTION_S:g} s") from error


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
