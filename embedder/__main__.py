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
from embedder.cache import EmbeddingCache, ModelIdentity
from embedder.compatibility import (
    ChunkShape,
    Served,
    check_compatible,
    check_same,
    check_targets,
    handshake,
)
from embedder.models import Model, Models
from embedder.sending.isolation import EmbeddingCall, SendingRules
from embedder.sending.packing import Capacity, capacity_of
from embedder.sending.servers import Handshake, Server, Servers, Shared
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
from shared.tei.allowed import TeiServer, own_servers
from shared.tei.client import TeiClient
from shared.tei.servers import check_any, first_success, tei_clients

log = structlog.get_logger()

_HANDSHAKE_S = 10.0  # a model that is still loading is asked again
# TEI's time limits until a request is ended although the server shows signs of life.
_LONGEST_SILENCES = 5


async def serve(process: Process, settings: Settings) -> None:
    await process.listen(
        web.Application(), settings.process.host, Port(50110, settings.embedder.embedder_port)
    )
    # Not bounded by connections: the permits of each server are the bound, and /health must not
    # wait behind them.
    session = await process.stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=UNCOMPRESSED)
    )
    own = own_servers(settings.tei, settings.tei.tei_url)
    process.health.checks["tei"] = check_any(tei_clients(session, settings.tei, own))
    opened = _Opened(process, session, settings.tei)
    models = Models(opened.open_model, settings.tei, settings.chunker)
    targets = Targets(process.pool)
    await process.unless_stopped(_first_answer(models, targets))
    if models.default is None:
        log.warning("Started without the servers of WEBHOOK_TEI_URL")
    else:
        served = models.default.served
        check_targets(await targets.settled(), served)
        log.info(
            "Service pool initialized", model=served.info.model_id, dimension=served.dimension,
            servers=len(own),
        )  # fmt: skip
    stage = EmbedStage(models, targets)
    draining = asyncio.create_task(opened.drain(), name="tei-drain")
    process.stack.callback(draining.cancel)
    probe = partial(models.probe, targets.in_use)
    await run_stage(process, stage, settings.runtime, {"tei": probe})


@stamina.retry(on=DependencyError, attempts=None, timeout=None, wait_initial=0.2, wait_max=2.0)
async def _first_answer(models: Models, targets: Targets) -> None:
    """Wait until the servers of WEBHOOK_TEI_URL answer, or those of another target in use.

    A port opens only after warm-up, so the first tries may be refused.
    """
    try:
        await models.open_default()
    except DependencyError:
        await models.probe(targets.in_use)


class _Opened:
    """Opens models for the life of the process."""

    def __init__(self, process: Process, session: aiohttp.ClientSession, tei: TeiSettings) -> None:
        self._process = process
        self._session = session
        self._tei = tei
        self._observe = observer(process)
        self._batchers: list[EmbeddingBatcher] = []

    async def drain(self) -> None:
        """Once the process is told to stop, give up what waits: another process takes it over."""
        await self._process.stop.wait()
        for batcher in self._batchers:
            batcher.drain()

    async def open_model(self, addresses: Sequence[TeiServer], shape: ChunkShape) -> Model:
        """Open the servers of one model: the first to answer says which model it is."""
        process, tei = self._process, self._tei
        clients = tei_clients(
            self._session, tei, addresses, embed_timeout_s=_LONGEST_SILENCES * tei.tei_timeout
        )
        served = await _first_served(clients)
        check_compatible(served, shape)
        shapes = {shape}
        shared = Shared(
            rules=SendingRules(dimension=served.dimension, silence_s=tei.tei_timeout),
            metrics=process.metrics,
            observe=self._observe,
        )

        def handshake_with(client: TeiClient) -> Handshake:
            async def shake_hands() -> Capacity:
                answer = await handshake(client)
                check_same(served, answer)
                for each in shapes:
                    check_compatible(answer, each)
                return capacity_of(answer.info, tei.max_concurrent_requests)

            return shake_hands

        servers = Servers(
            [Server(c.name, c, handshake_with(c), shared) for c in clients], served.dimension
        )
        identity = ModelIdentity(
            model=served.info.model_id, revision=served.info.model_sha, dimension=served.dimension
        )
        # Closes what was opened, if the rest fails.
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(servers)
            cache = await stack.enter_async_context(
                EmbeddingCache(process.pool, identity, process.metrics)
            )
            batcher = await stack.enter_async_context(EmbeddingBatcher(servers, keep=cache.put))
            process.stack.push_async_exit(stack.pop_all())
        self._batchers.append(batcher)
        vectors = VectorSource(batcher, cache)
        return Model(served=served, servers=servers, vectors=vectors, shapes=shapes)


async def _first_served(clients: Sequence[TeiClient]) -> Served:
    """What the first server to answer says of itself."""
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            return await first_success([partial(handshake, client) for client in clients])
    except TimeoutError as error:
        raise DependencyError("tei", f"no server answers within {_HANDSHAKE_S:g} s") from error


def observer(process: Process) -> Callable[[EmbeddingCall], None]:
    """Notes each TEI request in the metrics and as a row of type `embedding`."""
    seconds = process.metrics.request_seconds.labels("tei", "embed")

    def observe(call: EmbeddingCall) -> None:
        seconds.observe(call.duration_s)
        process.operations.add(
            Operation(
                operation_type="embedding",
                operation_name="embed",
                duration_ms=call.duration_s * 1000,
                success=call.error is None,
                error_message=str(call.error) if call.error else None,
                metadata={"inputs": call.inputs, "tokens": call.tokens},
            )
        )

    return observe


def main() -> None:
    run_process("embedder", Settings, serve)


if __name__ == "__main__":
    main()
