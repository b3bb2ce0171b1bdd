"""`millstream dead`: lists dead letters, replays them, drops them."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(
    help="List, show, replay or drop documents that were given up.",
    no_args_is_help=True,
)

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Ids of dead letters.")]
Stage = Annotated[str | None, typer.Option(help="Only documents that failed in this stage.")]
Code = Annotated[str | None, typer.Option(help="Only documents that failed with this code.")]
Job = Annotated[str | None, typer.Option(help="Only documents of this job.")]
Url = Annotated[str | None, typer.Option(help="Only this URL, exactly as it was sent.")]
Since = Annotated[
    str | None, typer.Option(help="Only what failed within this time, for example 1h.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
]
Replayed = Annotated[bool, typer.Option("--replayed", help="List replayed dead letters as well.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many dead letters to list.")]
After = Annotated[
    int | None, typer.Option(help="Continue after this id, which the previous page ends with.")
]
LetterId = Annotated[int, typer.Argument(metavar="ID", help="The id of the dead letter.")]
All = Annotated[
    bool, typer.Option("--all", help="Drop all of them; required without ids and filters.")
]

# Why a replay leaves a document out, by the counters of the answer.
_LEFT_OUT = {
    "superseded": "a later version of the document was accepted",
    "without_text": "their text is no longer kept",
    "without_item": "no failed document of a job belongs to them",
}


@app.command("list")
def list_letters(
    stage: Stage = None,
    code: Code = None,
    job: Job = None,
    url: Url = None,
    since: Since = None,
    replayed: Replayed = False,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""
    answer = ApiClient.from_environment().get(
        "/api/dead-letters",
        stage=stage,
        code=code,
        job_id=job,
        url=url,
        since=since,
        replayed=replayed or None,
        limit=limit,
        after=after,
    )
    emit(answer, as_json=as_json, show=lambda: _show_list(answer))


@app.command()
def show(letter_id: LetterId, as_json: Json = False) -> None:
    """Show one dead letter: its error and the start of its text."""
    dead_letter = ApiClient.from_environment().get(f"/api/dead-letters/{letter_id}")
    emit(dead_letter, as_json=as_json, show=lambda: _show_dead_letter(dead_letter))


@app.command()
def replay(
    ids: Ids = None,
    stage: Stage = None,
    code: Code = None,
    job: Job = None,
    url: Url = None,
    since: Since = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Queue the documents of dead letters again.

    They start with no attempt counted. Without ids and filters this replays all.
    """
    request = _given(ids=ids, stage=stage, code=code, job_id=job, url=url, since=since)
    answer = ApiClient.from_environment().post(
        "/api/dead-letters/replay", {**request, "dry_run": dry_run}
    )
    emit(answer, as_json=as_json, show=lambda: _show_replay(answer))


@app.command()
def drop(
    ids: Ids = None,
    stage: Stage = None,
    code: Code = None,
    job: Job = None,
    url: Url = None,
    since: Since = None,
    every: All = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters; they can no longer be replayed."""
    request = _given(stage=stage, code=code, job_id=job, url=url, since=since)
    if ids:
        request["ids"] = ",".join(map(str, ids))
    answer = ApiClient.from_environment().delete(
        "/api/dead-letters", **request, all=every, dry_run=dry_run
    )
    verb = "would be dropped" if dry_run else "dropped"
    emit(
        answer,
        as_json=as_json,
        show=lambda: console().print(f"{answer['dropped']} dead letters {verb}"),
    )


def _show_list(answer: dict[str, Any]) -> None:
    columns = ("id", "created_at", "stage", "code", "attempts", "deliveries", "url", "error")
    rows = [[dead_letter[name] for name in columns] for dead_letter in answer["dead_letters"]]
    console().print(table(columns, rows))
    if answer["next"]:
        console().print(f"More: --after {answer['next']}")


def _show_dead_letter(dead_letter: dict[str, Any]) -> None:
    for name, value in dead_letter.items():
        if value is not None:
            console().print(f"{name}: {value}", markup=False, highlight=False)


def _show_replay(answer: dict[str, Any]) -> None:
    verb = "would be queued" if answer["dry_run"] else "queued"
    console().print(f"{answer['replayed']} documents {verb} again")
    for name, reason in _LEFT_OUT.items():
        if answer[name]:
            console().print(f"{answer[name]} left out: {reason}")


def _given(**filters: Any) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value}
