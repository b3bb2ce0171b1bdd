"""`millstream reindex`: gives a collection another model or chunking while it stays in use."""

import enum
import time
from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.commands.collections import (
    ChunkOverlapTokens,
    ChunkPrefixTokens,
    MaxChunkCharacters,
    MaxChunkTokens,
    TeiUrl,
    Tokenizer,
    default_collection,
    own_settings,
)
from cli.failures import Exit
from cli.output import Json, console, emit, table, tell
from cli.patience import Patience
from cli.stall import StallNotice

_POLL_S = 1.0

Collection = Annotated[
    str | None, typer.Option(help="The collection to change, if it is not the default one.")
]
Defaults = Annotated[
    bool,
    typer.Option(
        "--defaults", help="Take what is not given from the services, not from the collection."
    ),
]
Status = Annotated[bool, typer.Option("--status", help="Show the reindex; start nothing.")]
Rollback = Annotated[
    bool, typer.Option("--rollback", help="Return to the previous model and chunking.")
]
SkipFailed = Annotated[
    bool, typer.Option("--skip-failed", help="Switch without the documents that failed.")
]
Cancel = Annotated[
    bool, typer.Option("--cancel", help="Stop the reindex; the collection stays as it is.")
]
DropRetired = Annotated[
    bool, typer.Option("--drop-retired", help="Delete the data that is kept for a rollback.")
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Wait until the reindex has ended, and print progress.")
]


class Action(enum.StrEnum):
    """An option that does something else than start a reindex."""

    STATUS = "status"
    ROLLBACK = "rollback"
    SKIP_FAILED = "skip-failed"
    CANCEL = "cancel"
    DROP_RETIRED = "drop-retired"


def reindex(
    context: typer.Context,
    collection: Collection = None,
    tei_url: TeiUrl = None,
    max_chunk_tokens: MaxChunkTokens = None,
    chunk_overlap_tokens: ChunkOverlapTokens = None,
    chunk_prefix_tokens: ChunkPrefixTokens = None,
    max_chunk_characters: MaxChunkCharacters = None,
    tokenizer: Tokenizer = None,
    defaults: Defaults = False,
    status: Status = False,
    rollback: Rollback = False,
    skip_failed: SkipFailed = False,
    cancel: Cancel = False,
    drop_retired: DropRetired = False,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Change the model or the chunking of a collection in use.

    All documents are processed again into a second Qdrant collection, then search switches to it.
    The reindex continues when this command ends. Exit status: 1 if the reindex was cancelled.
    """
    settings = own_settings(context) | {"defaults": defaults}
    action = _chosen(
        status=status,
        rollback=rollback,
        skip_failed=skip_failed,
        cancel=cancel,
        drop_retired=drop_retired,
    )
    api = ApiClient.from_environment(patience=Patience(tell) if follow else None)
    name = collection or default_collection(api)
    answer = _request(api, action, name, settings)
    if follow and "phase" in answer:
        answer = _follow(api, name)
    emit(answer, as_json=as_json, show=lambda: _show(answer))
    if answer.get("phase") == "cancelled":
        raise typer.Exit(Exit.FAILED)


def _chosen(**flags: bool) -> Action | None:
    chosen = [name.replace("_", "-") for name, is_set in flags.items() if is_set]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return Action(chosen[0]) if chosen else None


def _request(
    api: ApiClient, action: Action | None, collection: str, settings: dict[str, Any]
) -> Any:
    match action:
        case Action.STATUS:
            return _state(api, collection)
        case Action.ROLLBACK:
            body = {"collection": collection, "tei_url": settings["tei_url"]}
            return api.post("/api/reindex/rollback", body)
        case Action.SKIP_FAILED:
            return api.post("/api/reindex/skip-failed", collection=collection)
        case Action.CANCEL:
            return api.delete("/api/reindex", collection=collection)
        case Action.DROP_RETIRED:
            return api.delete("/api/reindex/retired", collection=collection)
        case None:
            return api.post("/api/reindex", {"collection": collection, **settings})


def _state(api: ApiClient, collection: str) -> dict[str, Any]:
    states: list[dict[str, Any]] = api.get("/api/reindex", collection=collection)["reindexes"]
    if not states:
        raise typer.BadParameter(f"the collection {collection} was never reindexed")
    return states[0]


def _follow(api: ApiClient, collection: str) -> dict[str, Any]:
    """Print a line whenever the state changes, until the reindex has ended."""
    notice = StallNotice(api, tell)
    shown = ""
    while True:
        state = _state(api, collection)
        line = f"{state['phase']}: {state['missing']} of {state['documents']} documents missing"
        if state["error"]:
            line += f" ({state['error']})"
        if line != shown:
            tell(line)
            shown = line
        if state["finished_at"] is not None:
            return state
        notice.watch(line)
        time.sleep(_POLL_S)


def _show(answer: dict[str, Any]) -> None:
    columns = [name for name in answer if name not in {"reindex_id", "error"}]
    console().print(table(columns, [[answer[name] for name in columns]]))
    if answer.get("error"):
        console().print(f"waiting: {answer['error']}", style="red", markup=False)
