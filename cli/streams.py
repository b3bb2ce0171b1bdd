"""`millstream streams`: how full every stage is, who holds which entry, and what to do about one."""

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live

from cli.client import ApiClient
from cli.output import Json, console, emit, print_json, table

app = typer.Typer(help="Streams: depth, lag, pending entries, consumers; and what to do about a pending entry.")

_MAX_URLS_SHOWN = 3

Stage = Annotated[str, typer.Argument(help="chunker, embedder or indexer.")]
EntryId = Annotated[str, typer.Argument(help="The entry's id, as `streams pending` shows it.")]
InLane = Annotated[str | None, typer.Option("--lane", help="Needed only if two lanes have an entry of this id.")]
HeldBy = Annotated[str | None, typer.Option("--consumer", help="Only if this consumer still holds it.")]


@app.callback(invoke_without_command=True)
def streams(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks of --watch.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Show every stage and lane: what waits, what is in work, and how long that will take.

    With --watch and --json, one JSON object a line for each look.
    """
    if context.invoked_subcommand is not None:
        return
    api = ApiClient.from_environment()
    if watch:
        _watch(api, interval, as_json=as_json)
    else:
        answer = api.get("/api/streams")
        emit(answer, as_json=as_json, show=lambda: console.print(_states(answer)))


@app.command()
def pending(
    stage: Stage,
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


@app.command()
def claim(stage: Stage, entry_id: EntryId, lane: InLane = None, consumer: HeldBy = None, as_json: Json = False) -> None:
    """Take a pending entry out of its worker's hands: nobody works on it for one lease, then a worker gets it again.

    The worker stops within a few seconds. No delivery is counted. Repeat it to hold the entry for longer.
    """
    answer = _act("claim", stage, entry_id, lane=lane, consumer=consumer)
    emit(answer, as_json=as_json, show=lambda: _say(answer, f"held for {answer['held_for_s']:g} s"))


@app.command()
def release(
    stage: Stage, entry_id: EntryId, lane: InLane = None, consumer: HeldBy = None, as_json: Json = False
) -> None:
    """Give a pending entry to the next worker that asks: its lease is not waited for, and no delivery counted."""
    answer = _act("release", stage, entry_id, lane=lane, consumer=consumer)
    emit(answer, as_json=as_json, show=lambda: _say(answer, "free for the next worker"))


@app.command("dead-letter")
def dead_letter(
    stage: Stage,
    entry_id: EntryId,
    reason: Annotated[str | None, typer.Option(help="Kept with the dead letters.")] = None,
    lane: InLane = None,
    consumer: HeldBy = None,
    as_json: Json = False,
) -> None:
    """Give up the documents of a pending entry: they become dead letters, for `millstream dead replay`."""
    answer = _act("dead-letter", stage, entry_id, lane=lane, consumer=consumer, reason=reason)
    emit(answer, as_json=as_json, show=lambda: _say(answer, f"{answer['dead_letters']} dead letters"))


def _act(action: str, stage: str, entry_id: str, **options: str | None) -> Any:
    return ApiClient.from_environment().post(f"/api/streams/{stage}/pending/{entry_id}/{action}", **options)


def _say(answer: dict[str, Any], outcome: str) -> None:
    console.print(f"{answer['id']} taken from {answer['taken_from']}: {outcome}", markup=False, highlight=False)


def _watch(api: ApiClient, interval: float, *, as_json: bool) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for answer in _looks(api, interval):
                print_json(answer)
        with Live(console=console, auto_refresh=False) as live:
            for answer in _looks(api, interval):
                live.update(_states(answer), refresh=True)


def _looks(api: ApiClient, interval: float) -> Iterator[dict[str, Any]]:
    while True:
        yield api.get("/api/streams")
        time.sleep(interval)


def _states(answer: dict[str, Any]) -> Group:
    columns = ("stage", "lane", "depth", "lag", "pending", "oldest_idle_ms", "redeliveries", "consumers")
    rows = [
        [stage["stage"], *(lane[name] for name in columns[1:-1]), len(lane["consumers"])]
        for stage in answer["stages"]
        for lane in stage["lanes"]
    ]
    speeds = [
        f"{stage['stage']}: {_number(stage['rate_per_s'])} batch messages a second, "
        f"empty in {_number(stage['eta_s'])} s"
        for stage in answer["stages"]
    ]
    return Group(table(columns, rows), *speeds)


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
