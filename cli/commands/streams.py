"""`millstream streams`: how full each stage is, which worker holds which entry; moving an entry."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, print_json, table, tell
from cli.patience import Patience

if TYPE_CHECKING:
    from rich.console import Group

app = typer.Typer(help="Show how full each stage is; list and move its entries.")

_MAX_URLS_SHOWN = 3

Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")]
IdleOver = Annotated[
    str | None, typer.Option(help="Only entries that were idle for longer, for example 60s.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many entries to list.")]
After = Annotated[
    str | None, typer.Option(help="Continue after this entry, which the previous page ends with.")
]
Stage = Annotated[str, typer.Argument(help="chunker, embedder or indexer.")]
EntryId = Annotated[
    str, typer.Argument(help="The id of the entry, from `millstream streams pending STAGE`.")
]
InLane = Annotated[
    str | None,
    typer.Option("--lane", help="The lane of the entry; required if two lanes have this id."),
]
HeldBy = Annotated[
    str | None, typer.Option("--consumer", help="Act only if this consumer still holds the entry.")
]
Reason = Annotated[str | None, typer.Option(help="A note that is kept with the dead letters.")]


@app.callback(invoke_without_command=True)
def streams(
    context: typer.Context, watch: Watch = False, interval: Interval = 2.0, as_json: Json = False
) -> None:
    """Show each stage and lane: entries waiting and in flight, the rate, and the time left.

    With --watch and --json, prints one JSON object on a line for each look.
    """
    if context.invoked_subcommand is not None:
        return
    api = ApiClient.from_environment(patience=Patience(tell) if watch else None)
    if watch:
        _watch(api, interval, as_json=as_json)
    else:
        answer = api.get("/api/streams")
        emit(answer, as_json=as_json, show=lambda: console().print(_states(answer)))


@app.command()
def pending(
    stage: Stage,
    idle_over: IdleOver = None,
    limit: Limit = 100,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the entries that workers hold, with jobs and URLs."""
    answer = ApiClient.from_environment().get(
        f"/api/streams/{stage}/pending", idle_over=idle_over, limit=limit, after=after
    )
    emit(answer, as_json=as_json, show=lambda: _show_pending(answer))


@app.command()
def claim(
    stage: Stage,
    entry_id: EntryId,
    lane: InLane = None,
    consumer: HeldBy = None,
    as_json: Json = False,
) -> None:
    """Take an entry from its worker and hold it for one lease.

    No worker gets it during that time. The worker stops working on it within a few seconds. No
    delivery is counted. Afterwards a worker gets the entry again; repeat the command to hold it for
    longer.
    """
    answer = _act("claim", stage, entry_id, lane=lane, consumer=consumer)
    emit(answer, as_json=as_json, show=lambda: _say(answer, f"held for {answer['held_for_s']:g} s"))


@app.command()
def release(
    stage: Stage,
    entry_id: EntryId,
    lane: InLane = None,
    consumer: HeldBy = None,
    as_json: Json = False,
) -> None:
    """Take an entry from its worker for the next worker at once.

    The lease need not run out first. No delivery is counted.
    """
    answer = _act("release", stage, entry_id, lane=lane, consumer=consumer)
    emit(answer, as_json=as_json, show=lambda: _say(answer, "available to the next worker"))


@app.command("dead-letter")
def dead_letter(
    stage: Stage,
    entry_id: EntryId,
    reason: Reason = None,
    lane: InLane = None,
    consumer: HeldBy = None,
    as_json: Json = False,
) -> None:
    """Turn the documents of an entry into dead letters.

    `millstream dead replay` queues them again.
    """
    answer = _act("dead-letter", stage, entry_id, lane=lane, consumer=consumer, reason=reason)
    emit(
        answer, as_json=as_json, show=lambda: _say(answer, f"{answer['dead_letters']} dead letters")
    )


def _act(action: str, stage: str, entry_id: str, **options: str | None) -> Any:
    path = f"/api/streams/{stage}/pending/{entry_id}/{action}"
    return ApiClient.from_environment().post(path, **options)


def _say(answer: dict[str, Any], outcome: str) -> None:
    line = f"{answer['id']} taken from {answer['taken_from']}: {outcome}"
    console().print(line, markup=False, highlight=False)


def _watch(api: ApiClient, interval: float, *, as_json: bool) -> None:
    from rich.live import Live

    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for answer in _looks(api, interval):
                print_json(answer)
        with Live(console=console(), auto_refresh=False) as live:
            for answer in _looks(api, interval):
                live.update(_states(answer), refresh=True)


def _looks(api: ApiClient, interval: float) -> Iterator[dict[str, Any]]:
    while True:
        yield api.get("/api/streams")
        time.sleep(interval)


def _states(answer: dict[str, Any]) -> "Group":
    from rich.console import Group

    columns = (
        "stage", "lane", "depth", "lag", "pending", "oldest_idle_ms", "redeliveries", "consumers",
    )  # fmt: skip
    rows = [
        [stage["stage"], *(lane[name] for name in columns[1:-1]), len(lane["consumers"])]
        for stage in answer["stages"]
        for lane in stage["lanes"]
    ]
    rates = [
        f"{stage['stage']}: {_number(stage['rate_per_s'])} batch messages a second, "
        f"empty in {_number(stage['eta_s'])} s"
        for stage in answer["stages"]
    ]
    return Group(table(columns, rows), *rates)


def _show_pending(answer: dict[str, Any]) -> None:
    columns = ("id", "lane", "consumer", "idle_ms", "deliveries", "job_id", "urls")
    rows = [
        [*(entry[name] for name in columns[:-1]), _urls(entry["urls"])]
        for entry in answer["entries"]
    ]
    console().print(table(columns, rows))
    if answer["next"]:
        console().print(f"More: --after {answer['next']}")


def _urls(urls: list[str]) -> str:
    shown = urls[:_MAX_URLS_SHOWN]
    more = len(urls) - len(shown)
    return " ".join([*shown, f"and {more} more"] if more else shown)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
