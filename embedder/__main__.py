"""The embedder service: `python -m embedder`."""

from collections.abc import Callable

import aiohttp
import stamina
import structlog
from aiohttp import web

from embedder.batcher import EmbeddingBatcher
from embedder.compatibility import PROBE, check_compatible
from embedder.isolation import EmbeddingCall, IsolatingEmbedder
from embedder.limiter import WeightedLimiter
from embedder.packing import capacity_of
from embedder.settings import Settings
from embedder.stage import EmbedStage
from shared.errors import DependencyError
from shared.jobs.operations import Operation
from shared.jobs.targets import Targets
from shared.runtime.consumer import make_failures, run_stage
from shared.runtime.process import Port, Process, run_process
from shared.streams import StageName
from shared.tei import TeiClient, TeiInfo
from shared.tokenizer import load_tokenizer

log = structlog.get_logger()

_SPARE_CONNECTIONS = 4  # so that /health does not wait behind embeddings


async def serve(process: Process, settings: Settings) -> None:
    await process.listen(web.Application(), settings.process.host, Port(50110, settings.embedder.embedder_port))
    session = await process.stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.tei.max_concurrent_requests + _SPARE_CONNECTIONS)
        )
    )
    client = TeiClient(
        session, settings.tei.tei_url, api_key=settings.tei.tei_api_key, timeout_s=settings.tei.tei_timeout
    )
    process.health.checks["tei"] = client.health
    info, dimension, probed = await process.unless_stopped(_introduce(client))
    tokenizer = load_tokenizer(settings.chunker.tokenizer)
    check_compatible(info, settings.chunker.max_chunk_tokens, probed, tokenizer.encode(PROBE).ids)
    capacity = capacity_of(info, settings.tei.max_concurrent_requests)
    embedder = IsolatingEmbedder(client, dimension, observe=observer(process))
    batcher = await process.stack.enter_async_context(
        EmbeddingBatcher(embedder, capacity, WeightedLimiter(capacity.inputs_in_flight))
    )
    failures = make_failures(StageName.EMBEDDER, settings.runtime)
    stage = EmbedStage(batcher, Targets(process.pool), info.model_id, failures, settings.runtime)
    log.info("Service pool initialized", model=info.model_id, dimension=dimension, tei=info.version)
    await run_stage(process, stage, settings.runtime, {"tei": client.probe})


@stamina.retry(on=DependencyError, attempts=None, timeout=None, wait_initial=0.2, wait_max=2.0)
async def _introduce(client: TeiClient) -> tuple[TeiInfo, int, list[int]]:
    """Limits and dimension of TEI, and the tokens it makes of the probe text.

    Its port opens only after warm-up, so the first tries may find nobody there.
    """
    return await client.info(), await client.probe(), await client.tokenize(PROBE)


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
