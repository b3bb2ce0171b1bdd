"""`millstream jobs`: lists jobs, shows their results, retries and cancels them."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.failures import Exit
from cli.output import Json, console, emit, table, tell
from cli.patience import Patience
from cli.stall import StallNotice

app = typer.Typer(help="List and show jobs; retry or cancel their documents.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The id of the job.")]
Status = Annotated[
    str | None,
    typer.Option(
        help="Only jobs that are queued, running, succeeded, partial, failed or cancelled."
    ),
]
OlderThan = Annotated[
    str | None, typer.Option(help="Only jobs that were accepted longer ago, for example 10m.")
]
CrawlId = Annotated[str | None, typer.Option(help="Only jobs of this crawl.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many jobs to list.")]
Follow = Annotated[
    bool, typer.Option("--follow", help="Wait until the job has ended, and print its progress.")
]


@app.command("list")
def list_jobs(
    status: Status = None,
    older_than: OlderThan = None,
    crawl_id: CrawlId = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    answer = ApiClient.from_environment().get(
        "/api/jobs", status=status, older_than=older_than, crawl_id=crawl_id, limit=limit
    )
    columns = ("job_id", "kind", "status", "total", "succeeded", "failed", "created_at")
    rows = [[job[name] for name in columns] for job in answer["jobs"]]
    emit(answer, as_json=as_json, show=lambda: console().print(table(columns, rows)))


@app.command()
def show(job_id: JobId, follow: Follow = False, as_json: Json = False) -> None:
    """Show a job and the result of each document, in input order.

    With --follow the command survives a restart of ingest. Exit status: 1 if a document failed.
    """
    api = ApiClient.from_environment(patience=Patience(tell) if follow else None)
    if follow:
        _follow(api, job_id)
    job = api.get(f"/api/jobs/{job_id}")
    emit(job, as_json=as_json, show=lambda: _show(job))
    if job["failed"]:
        raise typer.Exit(Exit.FAILED)


@app.command()
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Queue the failed documents of a job again.

    Documents that can never succeed are left out, for example those with an invalid URL.
    """
    answer = ApiClient.from_environment().post(f"/api/jobs/{job_id}/retry")
    emit(
        answer,
        as_json=as_json,
        show=lambda: console().print(f"{answer['retried']} documents queued again"),
    )


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel the documents of a job that have not started yet."""
    answer = ApiClient.from_environment().delete(f"/api/jobs/{job_id}")
    emit(
        answer,
        as_json=as_json,
        show=lambda: console().print(f"{answer['cancelled']} documents cancelled"),
    )


def _follow(api: ApiClient, job_id: str) -> None:
    """Print a line whenever the counters change, until the job has ended."""
    notice = StallNotice(api, tell)
    shown = ""
    while True:
        job = api.get(f"/api/jobs/{job_id}", wait="1s", limit=1)
        line = (
            f"{job['status']}: {job['succeeded']} succeeded, {job['failed']} failed "
            f"of {job['total']}"
        )
        if line != shown:
            tell(line)
        if job["status"] not in {"queued", "running"}:
            return
        shown = line
        notice.watch(line)


def _show(job: dict[str, Any]) -> None:
    console().print(
        f"{job['job_id']} {job['status']}: {job['succeeded']} of {job['total']} succeeded, "
        f"{job['failed']} failed, {job['cancelled']} cancelled; "
        f"{job['inputs_saved']} of {job['chunks']} chunks needed no embedding"
    )
    columns = ("position", "status", "stage", "chunks", "attempts", "url", "error")
    rows = [[result[name] for name in columns] for result in job["results"]]
    console().print(table(columns, rows))
