"""The chunker service: `python -m chunker`."""

import os

import structlog
from aiohttp import web

from chunker.recipes import Recipes
from chunker.settings import Settings
from chunker.splitting.threads import Threads
from chunker.stage import ChunkStage, TextPool
from shared.pipeline.stages import StageName
from shared.runtime.consumer import make_failures, run_stage
from shared.runtime.process import Port, Process, run_process

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    chunker = settings.chunker
    await process.listen(web.Application(), settings.process.host, Port(50109, chunker.chunker_port))
    recipes = Recipes(chunker)
    threads = Threads(os.cpu_count() or 1, settings.runtime.document_timeout, on_stuck=process.give_up)
    process.stack.callback(threads.close)
    texts = TextPool(recipes, threads)
    failures = make_failures(StageName.CHUNKER, settings.runtime)
    stage = ChunkStage(process.pool, texts, process.operations, failures, settings.runtime)
    log.info("Service pool initialized", tokenizer=chunker.tokenizer or "bundled")
    await run_stage(process, stage, settings.runtime)


def main() -> None:
    run_process("chunker", Settings, serve)


if __name__ == "__main__":
    main()
