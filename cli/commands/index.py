"""`millstream index`: sends documents, and shows how many of them are indexed."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.failures import ApiError, Exit
from cli.output import Json, console, emit, errors, fail, print_error, tell
from cli.patience import Patience
from cli.sources import lines_of, requests_of
from cli.stall import StallNotice

_POLL_S = 0.2
_MAX_FAILURES_SHOWN = 20

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Text files (.md, .markdown, .mdx, .txt, .rst), JSONL files (.jsonl, .ndjson), "
        "folders with such files, or - for JSONL on standard input.",
    ),
]
Collection = Annotated[
    str | None, typer.Option(help="Index into this collection instead of the default one.")
]
Lane = Annotated[
    str, typer.Option(help="high, normal or low: a higher lane overtakes the lower ones.")
]
Wait = Annotated[
    bool, typer.Option(help="Wait until all documents are searchable or failed, or return at once.")
]


def index(
    paths: Paths,
    collection: Collection = None,
    lane: Lane = "low",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Index files, folders or JSONL, and wait for the result.

    A line of JSONL is one document: {"url": ..., "markdown": ...}; the API documentation has all
    fields. A text file becomes a document with a file:// URL, and its first heading as title.

    The command survives a restart of ingest. If it is interrupted, the documents it has sent are
    indexed all the same. Exit status: 0 if all documents are indexed, 1 if one failed.
    """
    api = ApiClient.from_environment(patience=Patience(tell))
    jobs: list[str] = []
    try:
        jobs.extend(_send(api, paths, collection=collection, lane=lane))
        if wait:
            follow(api, jobs, quiet=as_json)
        report(api, jobs, as_json=as_json)
    except ApiError as error:
        if not jobs:
            raise
        print_error(f"{error}\nWhat was sent is indexed without this command. To see how it ends:")
        for job in jobs:
            tell(f"  millstream jobs show {job} --follow")
        raise typer.Exit(error.exit_status) from error


def follow(api: ApiClient, jobs: Sequence[str], *, quiet: bool) -> None:
    """Show a progress bar until all jobs have ended. Raises ApiError."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    notice = StallNotice(api, tell)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors(), disable=quiet) as progress:
        task = progress.add_task("Indexing", total=None)
        while True:
            states = [api.get(f"/api/jobs/{job}", limit=1) for job in jobs]
            ended = sum(
                state["succeeded"] + state["failed"] + state["cancelled"] for state in states
            )
            total = sum(state["total"] for state in states)
            progress.update(task, completed=ended, total=total)
            if ended == total:
                return
            notice.watch((ended, total))
            time.sleep(_POLL_S)


def report(api: ApiClient, jobs: Sequence[str], *, as_json: bool) -> None:
    """Print the outcome of the jobs. Ends the command with FAILED if a document failed."""
    states = [api.get(f"/api/jobs/{job}", limit=1000) for job in jobs]
    counters = ("total", "succeeded", "failed", "cancelled")
    summary: dict[str, Any] = {name: sum(state[name] for state in states) for name in counters}
    summary["jobs"] = list(jobs)
    failures = [r for state in states for r in state["results"] if r["success"] is False]
    emit(summary, as_json=as_json, show=lambda: _show(summary, failures))
    if summary["failed"]:
        raise typer.Exit(Exit.FAILED)


def _send(
    api: ApiClient, paths: Sequence[str], *, collection: str | None, lane: str
) -> Iterator[str]:
    """Post the documents in several requests; yields the id of the job that each one makes."""
    is_empty = True
    try:
        for lines in requests_of(lines_of(paths)):
            is_empty = False
            accepted = api.post_lines(
                "/api/index/batch",
                b"\n".join(lines),
                idempotency_key=str(uuid.uuid4()),
                collection=collection,
                lane=lane,
            )
            yield accepted["job_id"]
    except OSError as error:
        fail(f"Cannot read {error.filename or 'the input'}: {error.strerror or error}", Exit.FAILED)
    if is_empty:
        fail(
            "No documents found. Expected text files, JSONL files, or folders that contain some; "
            "`millstream index --help` lists the suffixes.",
            Exit.FAILED,
        )


def _show(summary: dict[str, Any], failures: Sequence[dict[str, Any]]) -> None:
    console().print(
        f"{summary['succeeded']} of {summary['total']} documents indexed, "
        f"{summary['failed']} failed"
    )
    for result in failures[:_MAX_FAILURES_SHOWN]:
        name = result["url"] or f"position {result['position']}"
        console().print(f"  {name}: {result['error']}", markup=False)
    if len(failures) > _MAX_FAILURES_SHOWN:
        console().print(
            f"  and {len(failures) - _MAX_FAILURES_SHOWN} more: `millstream dead list --job JOB_ID`"
        )
