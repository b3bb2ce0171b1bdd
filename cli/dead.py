"""`millstream dead`: what was given up and why, trying it again, and dropping it."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="Dead letters: list, show, replay, drop.", no_args_is_help=True)

Ids = Annotated[list[int] | None, typer.Argument(help="Ids of dead letters.")]
Stage = Annotated[str | None, typer.Option(help="Only what failed in this stage.")]
Code = Annotated[str | None, typer.Option(help="Only what failed with this code.")]
Job = Annotated[str | None, typer.Option(help="Only documents of this job.")]
Url = Annotated[str | None, typer.Option(help="Only this URL, as it was sent.")]
Since = Annotated[str | None, typer.Option(help="Only what failed within this time, for example 1h.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command("list")
def list_letters(
    stage: Stage = None,
    code: Code = None,
    job: Job = None,
    url: Url = None,
    since: Since = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="Those that were replayed, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    after: Annotated[int | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""
    answer = ApiClient.from_environment().get(
        "/api/dead-letters", stage=stage, code=code, job_id=job, url=url, since=since, replayed=replayed or None,
        limit=limit, after=after,
    )  # fmt: skip
    emit(answer, as_json=as_json, show=lambda: _show_list(answer))


@app.command()
def show(letter_id: Annotated[int, typer.Argument(help="The letter's id.")], as_json: Json = False) -> None:
    """Show one dead letter, with the beginning of what is kept of it."""
    letter = ApiClient.from_environment().get(f"/api/dead-letters/{letter_id}")
    emit(letter, as_json=as_json, show=lambda: _show_letter(letter))


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
    """Queue the documents of dead letters again; without ids and filters those of all letters."""
    wanted = _given(ids=ids, stage=stage, code=code, job_id=job, url=url, since=since)
    answer = ApiClient.from_environment().post("/api/dead-letters/replay", {**wanted, "dry_run": dry_run})
    emit(answer, as_json=as_json, show=lambda: _show_replay(answer))


@app.command()
def drop(
    ids: Ids = None,
    stage: Stage = None,
    code: Code = None,
    job: Job = None,
    url: Url = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="Drop all letters; needed without ids and filters.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good; their documents cannot be tried again then."""
    wanted = _given(stage=stage, code=code, job_id=job, url=url, since=since)
    if ids:
        wanted["ids"] = ",".join(map(str, ids))
    answer = ApiClient.from_environment().delete("/api/dead-letters", **wanted, all=every, dry_run=dry_run)
    verb = "would be dropped" if dry_run else "dropped"
    emit(answer, as_json=as_json, show=lambda: console.print(f"{answer['dropped']} dead letters {verb}"))


def _show_list(answer: dict[str, Any]) -> None:
    columns = ("id", "created_at", "stage", "code", "attempts", "deliveries", "url", "error")
    rows = [[letter[name] for name in columns] for letter in answer["dead_letters"]]
    console.print(table(columns, rows))
    if answer["next"]:
        console.print(f"more: --after {answer['next']}")


def _show_letter(letter: dict[str, Any]) -> None:
    for name, value in letter.items():
        if value is not None:
            console.print(f"{name}: {value}", markup=False, highlight=False)


def _show_replay(answer: dict[str, Any]) -> None:
    verb = "would be queued" if answer["dry_run"] else "queued"
    console.print(f"{answer['replayed']} documents {verb} again")
    reasons = {
        "superseded": "a later version of the document won",
        "without_text": "the text is not kept any more",
        "without_item": "no failed document of a job belongs to them",
    }
    for name, reason in reasons.items():
        if answer[name]:
            console.print(f"{answer[name]} left: {reason}")


def _given(**filters: Any) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value}
