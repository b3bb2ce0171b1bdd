"""`python -m local.qdrant --port N --data-dir D`: serve one data directory until SIGTERM or SIGINT,
then exit 0.
"""

import argparse
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from local.qdrant.app import make_app
from local.qdrant.collections import Directory, DirectoryInUseError

log = structlog.get_logger()

# Requests that are being answered at SIGTERM have this long; the stack kills after 30 s.
DRAIN_SECONDS = 10.0


def main() -> int:
    arguments = _parse()
    _configure_logging()
    try:
        directory = Directory.open(arguments.data_dir)
    except DirectoryInUseError as error:
        log.error("Vector store not started", reason=str(error))
        return 1
    app = make_app(directory, arguments.api_key)

    async def close(_app: web.Application) -> AsyncIterator[None]:
        log.info(
            "Vector store started",
            host=arguments.host,
            port=arguments.port,
            collections=directory.names(),
        )
        yield
        directory.close()
        log.info("Vector store stopped")

    app.cleanup_ctx.append(close)
    web.run_app(
        app,
        host=arguments.host,
        port=arguments.port,
        loop=uvloop.new_event_loop(),
        shutdown_timeout=DRAIN_SECONDS,
        access_log=None,
        print=None,
    )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.qdrant", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--api-key",
        default=os.environ.get("WEBHOOK_QDRANT_API_KEY"),
        help="asked for in the header api-key or as Bearer; default: WEBHOOK_QDRANT_API_KEY, which "
        "other users of this machine cannot read",
    )
    return parser.parse_args()


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
