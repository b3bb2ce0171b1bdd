"""The chunker service: `python -m chunker`."""

import os

import structlog
from aiohttp import web

from chunker.settings import Settings
from chunker.splitting.threads import Threads
from chunker.stage import ChunkStage
from chunker.target_splitters import TargetSplitters
from chunker.texts import Texts
from shared.jobs.registry import Registry
from shared.runtime.assembly import run_stage
from shared.runtime.process import Port, Process, run_process

log = structlog.get_logger()


async def serve(process: Process, settings: Settings) -> None:
    chunker = settings.chunker
    await process.listen(
        web.Application(), settings.process.host, Port(50109, chunker.chunker_port)
    )
    splitters = TargetSplitters(chunker)
    threads = Threads(
        os.cpu_count() or 1, settings.runtime.document_timeout, on_stuck=process.give_up
    )
    process.stack.callback(threads.close)
    stage = ChunkStage(
        Texts(process.pool, splitters, threads), Registry(process.pool), process.operations
    )
    log.info("Service pool initialized", tokenizer=chunker.tokenizer or "bundled")
    await run_stage(process, stage, settings.runtime)


def main() -> None:
    run_process("chunker", Settings, serve)


if __name__ == "__main__":
    main()
