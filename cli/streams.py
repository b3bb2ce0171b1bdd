"""`millstream streams`: how full every stage is, and who holds which entry."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="Streams: depth, lag, pending entries, consumers.")

_MAX_URLS_SHOWN = 3


@app.callback(invoke_without_command=True)
def streams(context: typer.Context, as_json: Json = False) -> None:
    """Show every stage and lane: what waits, what is in work, and how long that will take."""
    if context.invoked_subcommand is None:
        answer = ApiClient.from_environment().get("/api/streams")
        emit(answer, as_json=as_json, show=lambda: _show(answer))


@app.command()
def pending(
    stage: Annotated[str, typer.Argument(help="chunker, embedder or indexer.")],
    idle_over: Annotated[str | None, typer.Option(help="Only entries idle for this long, for example 60s.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    after: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Show the entries that a stage's consumers hold, with their jobs and urls (XPENDING)."""
    answer = ApiClient.from_environment().get(
        f"/api/streams/{stage}/pending", idle_over=idle_over, limit=limit, after=after
    )
    emit(answer, as_json=as_json, show=lambda: _show_pending(answer))


def _show(answer: dict[str, Any]) -> None:
    columns = ("stage", "lane", "depth", "lag", "pending", "oldest_idle_ms", "redeliveries", "consumers")
    rows = [
        [stage["stage"], *(lane[name] for name in columns[1:-1]), len(lane["consumers"])]
        for stage in answer["stages"]
        for lane in stage["lanes"]
    ]
    console.print(table(columns, rows))
    for stage in answer["stages"]:
        console.print(
            f"{stage['stage']}: {_number(stage['rate_per_s'])} batch messages a second, "
            f"empty in {_number(stage['eta_s'])} s"
        )


def _show_pending(answer: dict[str, Any]) -> None:
    columns = ("id", "lane", "consumer", "idle_ms", "deliveries", "job_id", "urls")
    rows = [[*(entry[name] for name in columns[:-1]), _urls(entry["urls"])] for entry in answer["entries"]]
    console.print(table(columns, rows))
    if answer["next"]:
        console.print(f"more: --after {answer['next']}")


def _urls(urls: list[str]) -> str:
    more = len(urls) - _MAX_URLS_SHOWN
    return " ".join([*urls[:_MAX_URLS_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
