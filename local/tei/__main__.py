"""`python -m local.tei --port N --cache-dir D`: run the embedded TEI until SIGTERM or SIGINT, then
exit 0.

The port opens only when the model has answered once, so "connection refused" means "still
starting".
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from local.tei.app import build_app
from local.tei.batch import MAX_INPUTS
from local.tei.contract import Info, Limits
from local.tei.engine import Engine
from local.tei.model import MODEL_ID, WEIGHTS_SHA256, cached_model, open_backend
from shared.service.errors import ConfigurationError
from shared.tei.tokenizer import load_tokenizer

DRAIN_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 3600.0  # as TEI: closing idle connections early leaves clients with dead ones

log = structlog.get_logger()


def main() -> None:
    options = _parser().parse_args()
    limits = Limits(
        max_client_batch_size=options.max_client_batch_size,
        max_concurrent_requests=options.max_concurrent_requests,
        max_batch_tokens=options.max_batch_tokens,
    )
    try:
        uvloop.run(_run(options, limits))
    except (ConfigurationError, OSError) as error:
        sys.exit(f"local.tei: {error}")


async def _run(options: argparse.Namespace, limits: Limits) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model = await asyncio.to_thread(cached_model, options.cache_dir)
    backend = await asyncio.to_thread(open_backend, model)
    engine = Engine(load_tokenizer(None), backend, limits, options.threads)
    try:
        await engine.embed(["warm up"], None)
        app = build_app(engine, _info(limits, options.threads), limits, options.api_key)
        await _serve(app, options, stop)
    finally:
        engine.close()


async def _serve(app: web.Application, options: argparse.Namespace, stop: asyncio.Event) -> None:
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=DRAIN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        log.info(
            "Embedding server ready", host=options.host, port=options.port, threads=options.threads
        )
        await stop.wait()
    finally:
        await runner.cleanup()


def _info(limits: Limits, threads: int) -> Info:
    return Info(
        model_id=MODEL_ID,
        model_sha=WEIGHTS_SHA256,
        model_type={"embedding": {"pooling": "mean"}},
        max_concurrent_requests=limits.max_concurrent_requests,
        max_input_length=limits.max_input_length,
        max_batch_tokens=limits.max_batch_tokens,
        max_batch_requests=MAX_INPUTS,
        max_client_batch_size=limits.max_client_batch_size,
        tokenization_workers=threads,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Limits()
    parser = argparse.ArgumentParser(
        "python -m local.tei", description="A TEI-compatible embedding server."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--cache-dir", type=Path, required=True, help="where the converted model is kept"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("WEBHOOK_TEI_API_KEY"),
        help="what clients send as Bearer; default: WEBHOOK_TEI_API_KEY, which other users of this "
        "machine cannot read; without either, no key is asked for",
    )
    parser.add_argument(
        "--max-client-batch-size", type=_positive, default=defaults.max_client_batch_size
    )
    parser.add_argument(
        "--max-concurrent-requests", type=_positive, default=defaults.max_concurrent_requests
    )
    parser.add_argument("--max-batch-tokens", type=_positive, default=defaults.max_batch_tokens)
    parser.add_argument(
        "--threads", type=_positive, default=os.cpu_count() or 1, help="default: all CPUs"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    main()
