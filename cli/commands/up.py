"""`millstream up`: the embedded servers and all services in one terminal."""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cli.client import ApiClient
from cli.commands.serve import apply_migrations
from cli.failures import Exit
from cli.output import Json, emit, errors, table, without_credentials
from cli.sample_run import SampleReport, run_sample

if TYPE_CHECKING:
    from local.fleet import ProcessRow

INGEST_PORT = 50108  # as in documentation and examples; another one if it is taken

_COLOURS = ("cyan", "green", "magenta", "yellow")  # of the services, in order and again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    data_dir: Path
    replicas: dict[str, int]
    port: int | None
    restart: bool
    sample: bool
    once: bool


Sample = Annotated[
    bool,
    typer.Option(
        "--sample", help="Send a bundled crawl through the webhook, and search its pages."
    ),
]
Once = Annotated[
    bool, typer.Option("--once", help="Stop as soon as everything is started and searched.")
]
Replicas = Annotated[
    str, typer.Option(help="Processes of each service, for example embedder=2,chunker=2.")
]
IngestPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help=f"Port of ingest; 0 for a free one.  [default: {INGEST_PORT}, or a free one if it is "
        "in use]",
    ),
]
DataDir = Annotated[Path, typer.Option(help="Folder for the servers' data, logs and stack.env.")]
Restart = Annotated[
    bool, typer.Option(help="Restart a process that ends unexpectedly, or leave it.")
]


def up(
    sample: Sample = False,
    once: Once = False,
    replicas: Replicas = "",
    port: IngestPort = None,
    data_dir: DataDir = Path(".millstream"),
    restart: Restart = True,
    as_json: Json = False,
) -> None:
    """Run everything on this machine: all servers and services.

    Starts Redis, Postgres, TEI, Qdrant and the four services; no Docker is needed. A server whose
    URL is set (WEBHOOK_REDIS_URL, WEBHOOK_DATABASE_URL, WEBHOOK_TEI_URL, WEBHOOK_QDRANT_URL) is
    used instead of an embedded one. Ctrl-C stops all; the data stays, and the next start finds it.

    Other commands find this stack through its stack.env: set -a; . .millstream/stack.env; set +a
    """
    import asyncio

    options = UpOptions(
        data_dir=data_dir,
        replicas=parse_replicas(replicas),
        port=port,
        restart=restart,
        sample=sample,
        once=once,
    )
    report = asyncio.run(_until_signalled(options))
    if report is None:
        return
    # After everything has stopped: the report is the last line, also after logs of the services.
    emit(report, as_json=True, show=lambda: None)
    if not report.is_as_expected:
        raise typer.Exit(Exit.FAILED)


def parse_replicas(text: str) -> dict[str, int]:
    """Read `name=count,...`."""
    replicas = {}
    for part in filter(None, text.split(",")):
        name, _, count = part.partition("=")
        if not count.isdecimal():
            raise typer.BadParameter(f"expected SERVICE=COUNT, for example embedder=2: {part!r}")
        replicas[name.strip()] = int(count)
    return replicas


async def _until_signalled(options: UpOptions) -> SampleReport | None:
    import asyncio

    loop = asyncio.get_running_loop()
    main = asyncio.ensure_future(_run(options))

    def leave() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)  # a second Ctrl-C ends the process at once
        main.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, leave)
    with contextlib.suppress(asyncio.CancelledError):
        return await main
    return None


async def _run(options: UpOptions) -> SampleReport | None:
    import asyncio

    from local.services import Services
    from local.stack import API_SECRET, WEBHOOK_SECRET, Stack

    environ = {"WEBHOOK_LOG_FORMAT": "console", **os.environ}
    delay = 1.0 if options.restart else None
    async with Stack(options.data_dir, environ, notify=_notify, restart_delay=delay) as stack:
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
                secret = services.environment[WEBHOOK_SECRET]
                report = await asyncio.to_thread(run_sample, api, secret)
            if options.once:
                return report
            _show_hints(stack.fleet.environment_path, services.url)
            await asyncio.Event().wait()  # until a signal cancels it
    return None


def _notify(line: str) -> None:
    errors().print(line, style="bold", markup=False, highlight=False)


def _show_line(name: str, line: str) -> None:
    from rich.text import Text

    colour = colour_of(name.partition("-")[0])
    text = Text.assemble((f"{name:<11}", colour), line)
    errors().print(text, highlight=False, soft_wrap=True)


def colour_of(part: str) -> str:
    """The colour of the lines of a service; white for a server."""
    from local.services import SERVICES

    return _COLOURS[SERVICES.index(part) % len(_COLOURS)] if part in SERVICES else "white"


def _show_rows(rows: "Sequence[ProcessRow]") -> None:
    columns = ("service", "replica", "pid", "url")
    cells = [[row.service, row.replica, row.pid, without_credentials(row.url)] for row in rows]
    errors().print(table(columns, cells))


def _show_hints(environment: Path, url: str) -> None:
    shown = os.path.relpath(environment)
    errors().print(
        f"\nIngest is ready at {url}. In another terminal: set -a; . {shown}; set +a\n"
        "Then try: millstream search QUERY, millstream index PATH, millstream jobs list. "
        "Ctrl-C here stops everything.\n"
    )
