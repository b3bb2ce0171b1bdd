"""`millstream documents`, `millstream prune` and `millstream stats`: what is there, and removing it."""

import sys
from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="Documents: show, delete.", no_args_is_help=True)

Url = Annotated[str, typer.Argument(help="The page's URL, as it was sent or in any form that means the same.")]
Collection = Annotated[str | None, typer.Option(help="The collection, if it is not the default one.")]


@app.command()
def show(url: Url, collection: Collection = None, as_json: Json = False) -> None:
    """Show where a page is: every stage, its last error, and what search shows of it."""
    document = ApiClient.from_environment().get("/api/documents", url=url, collection=collection)
    emit(document, as_json=as_json, show=lambda: _show(document))


@app.command()
def delete(url: Url, collection: Collection = None, as_json: Json = False) -> None:
    """Remove a page from search."""
    answer = ApiClient.from_environment().delete("/api/documents", url=url, collection=collection)
    emit(answer, as_json=as_json, show=lambda: console.print(f"job {answer['job_id']}"))


def prune(
    crawl_id: Annotated[str, typer.Argument(help="A finished crawl of whole sites.")],
    domain: Annotated[list[str] | None, typer.Option(help="Only this site of the crawl; may be repeated.")] = None,
    url_prefix: Annotated[str | None, typer.Option(help="Only pages whose URL begins so.")] = None,
    collection: Collection = None,
    assume_completed: Annotated[
        bool, typer.Option("--assume-completed", help="Though the crawl did not say that it is completed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the pages of a crawl's sites that the crawl did not see again."""
    api = ApiClient.from_environment()
    wanted = {
        "crawl_id": crawl_id, "collection": collection, "domains": domain or None, "url_prefix": url_prefix,
        "assume_completed": assume_completed,
    }  # fmt: skip
    if dry_run or (sys.stdin.isatty() and not yes):
        looked = api.post("/api/prune", {**wanted, "dry_run": True})
        emit(looked, as_json=as_json, show=lambda: _show_prune(looked))
        if dry_run or not looked["pruned"]:
            return
        typer.confirm(f"Remove {looked['pruned']} pages?", abort=True, err=True)
    answer = api.post("/api/prune", {**wanted, "dry_run": False})
    emit(answer, as_json=as_json, show=lambda: _show_prune(answer))


def stats(crawl_id: Annotated[str | None, typer.Option(help="Only this crawl.")] = None, as_json: Json = False) -> None:
    """Count documents, chunks, jobs and what waits; or the documents of one crawl."""
    answer = ApiClient.from_environment().get("/api/stats", crawl_id=crawl_id)
    emit(answer, as_json=as_json, show=lambda: _show_stats(answer))


def _show(document: dict[str, Any]) -> None:
    console.print(
        f"{document['url']}: {document['state']}, version {document['version']}, "
        f"visible {document['live_version'] or 'nothing'} with {document['chunks']} chunks"
    )
    console.print(
        f"job {document['job_id']}, {document['attempts']} failed attempts, accepted {document['accepted_at']}"
    )
    columns = ("stage", "started_at", "finished_at", "attempts", "worker")
    console.print(table(columns, [[stage[name] for name in columns] for stage in document["stages"]]))
    if document["last_error"]:
        console.print(f"last error: {document['last_error']}", style="red", markup=False)


def _show_prune(answer: dict[str, Any]) -> None:
    columns = ("domain", "seen", "gone")
    console.print(table(columns, [[site[name] for name in columns] for site in answer["sites"]]))
    for url in answer["urls"]:
        console.print(f"  {url}", markup=False, highlight=False)
    verb = "would be removed" if answer["dry_run"] else f"are being removed, job {answer['job_id']}"
    console.print(f"{answer['pruned']} pages {verb}" if answer["pruned"] else "nothing to remove")


def _show_stats(answer: dict[str, Any]) -> None:
    for name, value in answer.items():
        if isinstance(value, list):
            for row in value:
                console.print(", ".join(f"{key} {part}" for key, part in row.items()), markup=False)
        elif isinstance(value, dict):
            console.print(f"{name}: " + ", ".join(f"{key} {part}" for key, part in value.items()), markup=False)
        else:
            console.print(f"{name}: {'' if value is None else value}", markup=False)
