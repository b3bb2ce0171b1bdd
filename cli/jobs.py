"""`millstream jobs`: what was accepted, how it stands, and trying it again."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Exit, Json, console, emit, errors, table

app = typer.Typer(help="Jobs: list, show, retry, cancel.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, partial, failed, cancelled.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only jobs older than this, for example 10m.")] = None,
    crawl_id: Annotated[str | None, typer.Option(help="Only jobs of this crawl.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    answer = ApiClient.from_environment().get(
        "/api/jobs", status=status, older_than=older_than, crawl_id=crawl_id, limit=limit
    )
    columns = ("job_id", "kind", "status", "total", "succeeded", "failed", "created_at")
    rows = [[job[name] for name in columns] for job in answer["jobs"]]
    emit(answer, as_json=as_json, show=lambda: console.print(table(columns, rows)))


@app.command()
def show(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait until the job has ended, and say how it gets on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a job and its results in input order. Ends with 1 if a document failed."""
    api = ApiClient.from_environment()
    if follow:
        _follow(api, job_id)
    job = api.get(f"/api/jobs/{job_id}")
    emit(job, as_json=as_json, show=lambda: _show(job))
    if job["failed"]:
        raise typer.Exit(Exit.FAILED)


@app.command()
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Try again every failed document of a job that can still succeed."""
    answer = ApiClient.from_environment().post(f"/api/jobs/{job_id}/retry")
    emit(answer, as_json=as_json, show=lambda: console.print(f"{answer['retried']} documents queued again"))


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel the documents of a job that have not started."""
    answer = ApiClient.from_environment().delete(f"/api/jobs/{job_id}")
    emit(answer, as_json=as_json, show=lambda: console.print(f"{answer['cancelled']} documents cancelled"))


def _follow(api: ApiClient, job_id: str) -> None:
    """Print a line to stderr whenever the counters have changed, until the job is terminal."""
    shown = ""
    while True:
        job = api.get(f"/api/jobs/{job_id}", wait="1s", limit=1)
        line = f"{job['status']}: {job['succeeded']} succeeded, {job['failed']} failed of {job['total']}"
        if line != shown:
            errors.print(line, markup=False)
        if job["status"] not in {"queued", "running"}:
            return
        shown = line


def _show(job: dict[str, Any]) -> None:
    console.print(
        f"{job['job_id']} {job['status']}: {job['succeeded']} of {job['total']} succeeded, {job['failed']} failed, "
        f"{job['cancelled']} cancelled; {job['inputs_saved']} of {job['chunks']} chunks needed no embedding"
    )
    columns = ("position", "status", "stage", "chunks", "attempts", "url", "error")
    console.print(table(columns, [[result[name] for name in columns] for result in job["results"]]))
