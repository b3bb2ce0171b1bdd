"""`millstream reindex`: another model or chunking for a collection, while it is searched and documents come in."""

import enum
import time
from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.collections import (
    ChunkOverlapTokens,
    ChunkPrefixTokens,
    MaxChunkCharacters,
    MaxChunkTokens,
    TeiUrl,
    Tokenizer,
    default_collection,
    own_settings,
)
from cli.output import Exit, Json, console, emit, errors, table

_POLL_SECONDS = 1.0


class What(enum.StrEnum):
    """What is asked for, besides starting."""

    STATUS = "status"
    ROLLBACK = "rollback"
    SKIP_FAILED = "skip-failed"
    CANCEL = "cancel"
    DROP_RETIRED = "drop-retired"


def reindex(
    context: typer.Context,
    collection: Annotated[str | None, typer.Option(help="The collection, if it is not the default one.")] = None,
    tei_url: TeiUrl = None,
    max_chunk_tokens: MaxChunkTokens = None,
    chunk_overlap_tokens: ChunkOverlapTokens = None,
    chunk_prefix_tokens: ChunkPrefixTokens = None,
    max_chunk_characters: MaxChunkCharacters = None,
    tokenizer: Tokenizer = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="What is not said: as the services are set.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only show how far it is.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to what served before, up to date.")] = False,
    skip_failed: Annotated[bool, typer.Option("--skip-failed", help="Switch without what failed.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give it up; the collection stays as it is.")] = False,
    drop_retired: Annotated[bool, typer.Option("--drop-retired", help="Drop what is kept for a rollback.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end, and say how it gets on.")] = False,
    as_json: Json = False,
) -> None:
    """Change the model or the chunking of a collection. It goes on when this command has ended."""
    settings = own_settings(context) | {"defaults": defaults}
    what = _chosen(status=status, rollback=rollback, skip_failed=skip_failed, cancel=cancel, drop_retired=drop_retired)
    api = ApiClient.from_environment()
    name = collection or default_collection(api)
    answer = _ask(api, what, name, settings)
    if follow and "phase" in answer:
        answer = _follow(api, name)
    emit(answer, as_json=as_json, show=lambda: _show(answer))
    if answer.get("phase") == "cancelled":
        raise typer.Exit(Exit.FAILED)


def _chosen(**flags: bool) -> What | None:
    chosen = [name.replace("_", "-") for name, is_set in flags.items() if is_set]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} or --{chosen[1]}, not both")
    return What(chosen[0]) if chosen else None


def _ask(api: ApiClient, what: What | None, collection: str, settings: dict[str, Any]) -> Any:
    match what:
        case What.STATUS:
            return _state(api, collection)
        case What.ROLLBACK:
            return api.post("/api/reindex/rollback", {"collection": collection, "tei_url": settings["tei_url"]})
        case What.SKIP_FAILED:
            return api.post("/api/reindex/skip-failed", collection=collection)
        case What.CANCEL:
            return api.delete("/api/reindex", collection=collection)
        case What.DROP_RETIRED:
            return api.delete("/api/reindex/retired", collection=collection)
        case None:
            return api.post("/api/reindex", {"collection": collection, **settings})


def _state(api: ApiClient, collection: str) -> dict[str, Any]:
    states: list[dict[str, Any]] = api.get("/api/reindex", collection=collection)["reindexes"]
    if not states:
        raise typer.BadParameter(f"there was no reindex of {collection}")
    return states[0]


def _follow(api: ApiClient, collection: str) -> dict[str, Any]:
    """Print a line to stderr whenever something has changed, until it has ended."""
    shown = ""
    while True:
        state = _state(api, collection)
        line = f"{state['phase']}: {state['missing']} of {state['documents']} documents missing"
        if state["error"]:
            line += f" ({state['error']})"
        if line != shown:
            errors.print(line, markup=False, highlight=False)
            shown = line
        if state["finished_at"] is not None:
            return state
        time.sleep(_POLL_SECONDS)


def _show(answer: dict[str, Any]) -> None:
    columns = [name for name in answer if name not in {"reindex_id", "error"}]
    console.print(table(columns, [[answer[name] for name in columns]]))
    if answer.get("error"):
        console.print(f"waits: {answer['error']}", style="red", markup=False)
