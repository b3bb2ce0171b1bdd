"""`millstream up`: the embedded stack and all services in one terminal, and on request a sample crawl through them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import msgspec
import typer
from rich.text import Text

from cli.client import ApiClient
from cli.output import Exit, Json, emit, errors, table
from cli.sample_run import SampleReport, run_sample
from cli.serve import apply_migrations
from local.fleet import ProcessRow
from local.services import Services
from local.stack import API_SECRET, WEBHOOK_SECRET, Stack

INGEST_PORT = 50108  # as in documentation and examples; another one if it is taken

_COLOURS = {"ingest": "cyan", "chunker": "green", "embedder": "magenta", "indexer": "yellow"}


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: Path
    replicas: dict[str, int]
    port: int | None
    restart: bool
    sample: bool
    once: bool


def up(
    sample: Annotated[bool, typer.Option(help="Index the bundled crawl through the webhook and search it.")] = False,
    once: Annotated[bool, typer.Option(help="End when all is started, and the sample is searched.")] = False,
    replicas: Annotated[str, typer.Option(help="For example embedder=2,chunker=2.")] = "",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"The port of ingest, 0 for a free one. By default {INGEST_PORT}, or a free one if it is in use.",
        ),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where servers keep their data.")] = Path(".millstream"),
    restart: Annotated[bool, typer.Option(help="Start again what dies.")] = True,
    as_json: Json = False,
) -> None:
    """Start Redis, Postgres, TEI and Qdrant, and the four services on them."""
    options = UpOptions(
        data_dir=data_dir, replicas=parse_replicas(replicas), port=port, restart=restart, sample=sample, once=once
    )
    report = asyncio.run(_until_signalled(options))
    if report is None:
        return
    # After everything has stopped: the report is the last line, whatever the services still had to say.
    emit(report, as_json=True, show=lambda: None)
    if not report.is_as_expected:
        raise typer.Exit(Exit.FAILED)


def parse_replicas(text: str) -> dict[str, int]:
    """Read `name=count,...`."""
    replicas = {}
    for part in filter(None, text.split(",")):
        name, _, count = part.partition("=")
        if not count.isdecimal():
            raise typer.BadParameter(f"{part!r} is not of the form embedder=2")
        replicas[name.strip()] = int(count)
    return replicas


async def _until_signalled(options: UpOptions) -> SampleReport | None:
    loop = asyncio.get_running_loop()
    main = asyncio.ensure_future(_run(options))

    def leave() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # a second Ctrl+C does not wait for anything
        main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    with contextlib.suppress(asyncio.CancelledError):
        return await main
    return None


async def _run(options: UpOptions) -> SampleReport | None:
    environ = {"WEBHOOK_LOG_FORMAT": "console", **os.environ}
    restart_delay = 1.0 if options.restart else None
    async with Stack(options.data_dir, environ, notify=_notify, restart_delay=restart_delay) as stack:
        await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
        async with Services(
            stack,
            replicas=options.replicas,
            ingest_port=options.port,
            default_ingest_port=INGEST_PORT,
            on_line=_show_line,
        ) as services:
            _show_rows(stack.fleet.rows)
            report = None
            if options.sample:
                api = ApiClient(services.url, services.environment[API_SECRET])
                report = await asyncio.to_thread(run_sample, api, services.environment[WEBHOOK_SECRET])
            if options.once:
                return report
            _show_hints(stack.fleet.environment_path, services.url)
            await asyncio.Event().wait()  # until a signal cancels it
    return None


def _notify(line: str) -> None:
    errors.print(line, style="bold", markup=False, highlight=False)


def _show_line(name: str, line: str) -> None:
    colour = _COLOURS.get(name.partition("-")[0], "white")
    errors.print(Text.assemble((f"{name:<11}", colour), line), highlight=False, soft_wrap=True)


def _show_rows(rows: Sequence[ProcessRow]) -> None:
    columns = ("service", "replica", "pid", "url")
    errors.print(table(columns, [(row.service, row.replica, row.pid, without_credentials(row.url)) for row in rows]))


def without_credentials(url: str) -> str:
    """The URL as it may stand on a screen."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _show_hints(environment: Path, url: str) -> None:
    shown = os.path.relpath(environment)
    errors.print(f"\nIngest listens at {url}. In a second terminal: set -a; . {shown}; set +a")
    errors.print("Then: millstream search QUERY, millstream index PATH, millstream jobs list. Ctrl+C ends all.\n")
