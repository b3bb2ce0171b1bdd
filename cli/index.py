"""`millstream index`: sends documents and shows how they get on."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import ApiClient
from cli.output import Exit, Json, console, emit, errors, fail
from cli.sources import lines_of, requests_of

_POLL_SECONDS = 0.2


def index(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, JSONL files, or - for standard input.")],
    collection: Annotated[str | None, typer.Option(help="The collection to index into.")] = None,
    lane: Annotated[str, typer.Option(help="high, normal or low.")] = "low",
    wait: Annotated[bool, typer.Option(help="Wait until all documents are searchable.")] = True,
    as_json: Json = False,
) -> None:
    """Index documents: Markdown and text files, folders of them, or JSONL with url and markdown."""
    api = ApiClient.from_environment()
    try:
        accepted = [
            api.post_lines("/api/index/batch", b"\n".join(lines), collection=collection, lane=lane)
            for lines in requests_of(lines_of(paths))
        ]
    except OSError as error:
        fail(str(error), Exit.FAILED)
    if not accepted:
        fail("There is nothing to index in these paths", Exit.FAILED)
    jobs = [answer["job_id"] for answer in accepted]
    if wait:
        follow(api, jobs, quiet=as_json)
    report(api, jobs, as_json=as_json)


def follow(api: ApiClient, jobs: Sequence[str], *, quiet: bool) -> None:
    """Show a progress bar until all jobs are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=quiet) as progress:
        task = progress.add_task("Indexing", total=None)
        while True:
            states = [api.get(f"/api/jobs/{job}", limit=1) for job in jobs]
            ended = sum(state["succeeded"] + state["failed"] + state["cancelled"] for state in states)
            total = sum(state["total"] for state in states)
            progress.update(task, completed=ended, total=total)
            if ended == total:
                return
            time.sleep(_POLL_SECONDS)


def report(api: ApiClient, jobs: Sequence[str], *, as_json: bool) -> None:
    """Print the outcome of the jobs; ends with FAILED if a document failed."""
    states = [api.get(f"/api/jobs/{job}", limit=1000) for job in jobs]
    summary: dict[str, Any] = {
        name: sum(state[name] for state in states) for name in ("total", "succeeded", "failed", "cancelled")
    }
    summary["jobs"] = list(jobs)
    failures = [result for state in states for result in state["results"] if result["success"] is False]

    def show() -> None:
        console.print(f"{summary['succeeded']} of {summary['total']} documents indexed, {summary['failed']} failed")
        for result in failures[:20]:
            console.print(
                f"  {result['url'] or 'position ' + str(result['position'])}: {result['error']}", markup=False
            )

    emit(summary, as_json=as_json, show=show)
    if summary["failed"]:
        raise typer.Exit(Exit.FAILED)
