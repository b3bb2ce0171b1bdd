"""`millstream documents`, `stats` and `prune`: what is indexed, and removing it."""

import sys
from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="Find out where a page is; remove a page.", no_args_is_help=True)

Url = Annotated[
    str, typer.Argument(help="The URL of the page, as it was sent or in an equivalent form.")
]
Collection = Annotated[
    str | None, typer.Option(help="The collection of the page, if it is not the default one.")
]


@app.command()
def show(url: Url, collection: Collection = None, as_json: Json = False) -> None:
    """Show how far a page is, and what search shows of it.

    Prints the times of each stage, the worker, the attempts and the last error.
    """
    document = ApiClient.from_environment().get("/api/documents", url=url, collection=collection)
    emit(document, as_json=as_json, show=lambda: _show(document))


@app.command()
def delete(url: Url, collection: Collection = None, as_json: Json = False) -> None:
    """Remove a page from search. Prints the job that does it."""
    answer = ApiClient.from_environment().delete("/api/documents", url=url, collection=collection)
    emit(answer, as_json=as_json, show=lambda: console().print(f"job {answer['job_id']}"))


def stats(
    crawl_id: Annotated[
        str | None, typer.Option(help="Count the documents of this crawl instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count documents, chunks, jobs and queued work.

    With --crawl-id, count the documents of one crawl by state.
    """
    answer = ApiClient.from_environment().get("/api/stats", crawl_id=crawl_id)
    emit(answer, as_json=as_json, show=lambda: _show_stats(answer))


def prune(
    crawl_id: Annotated[str, typer.Argument(help="A completed crawl of whole sites.")],
    domain: Annotated[
        list[str] | None, typer.Option(help="Only this site of the crawl; may be repeated.")
    ] = None,
    url_prefix: Annotated[
        str | None, typer.Option(help="Only pages whose URL begins with this.")
    ] = None,
    collection: Collection = None,
    assume_completed: Annotated[
        bool,
        typer.Option(
            "--assume-completed", help="Prune although the crawl did not report its completion."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Remove pages that a newer crawl of their site did not find.

    A page is removed if it belongs to a site of the crawl, was indexed before, and is not among the
    pages of this crawl. On a terminal the command shows the pages and asks first.
    """
    api = ApiClient.from_environment()
    request = {
        "crawl_id": crawl_id,
        "collection": collection,
        "domains": domain or None,
        "url_prefix": url_prefix,
        "assume_completed": assume_completed,
    }
    if dry_run or (sys.stdin.isatty() and not yes):
        preview = api.post("/api/prune", {**request, "dry_run": True})
        emit(preview, as_json=as_json, show=lambda: _show_prune(preview))
        if dry_run or not preview["pruned"]:
            return
        typer.confirm(f"Remove {preview['pruned']} pages?", abort=True, err=True)
    answer = api.post("/api/prune", {**request, "dry_run": False})
    emit(answer, as_json=as_json, show=lambda: _show_prune(answer))


def _show(document: dict[str, Any]) -> None:
    live = document["live_version"]
    searchable = "not searchable" if live is None else f"version {live} is searchable"
    console().print(
        f"{document['url']}: {document['state']}, version {document['version']}; "
        f"{searchable}, {document['chunks']} chunks",
        markup=False,
    )
    console().print(
        f"job {document['job_id']}, accepted {document['accepted_at']}, "
        f"{document['attempts']} failed attempts"
    )
    columns = ("stage", "started_at", "finished_at", "attempts", "worker")
    rows = [[stage[name] for name in columns] for stage in document["stages"]]
    console().print(table(columns, rows))
    if document["last_error"]:
        console().print(f"last error: {document['last_error']}", style="red", markup=False)


def _show_prune(answer: dict[str, Any]) -> None:
    columns = ("domain", "seen", "gone")
    console().print(table(columns, [[site[name] for name in columns] for site in answer["sites"]]))
    for url in answer["urls"]:
        console().print(f"  {url}", markup=False, highlight=False)
    if not answer["pruned"]:
        console().print("Nothing to remove.")
    elif answer["dry_run"]:
        console().print(f"{answer['pruned']} pages would be removed.")
    else:
        console().print(f"{answer['pruned']} pages are being removed by job {answer['job_id']}.")


def _show_stats(answer: dict[str, Any]) -> None:
    for name, value in answer.items():
        if isinstance(value, list):
            for row in value:
                _print(_pairs(row))
        elif isinstance(value, dict):
            _print(f"{name}: {_pairs(value)}")
        else:
            _print(f"{name}: {'' if value is None else value}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _print(line: str) -> None:
    console().print(line, markup=False)
