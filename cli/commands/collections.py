"""`millstream collections`: lists collections, and creates one with settings of its own."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="List collections; create one with its own settings.", no_args_is_help=True)

# The settings that a collection may have of its own; `millstream reindex` takes them as well.
TeiUrl = Annotated[
    str | None, typer.Option(help="URL of its embedding server; several, separated by commas.")
]
MaxChunkTokens = Annotated[
    int | None, typer.Option(help="Tokens of a chunk at most, title and headings included.")
]
ChunkOverlapTokens = Annotated[
    int | None, typer.Option(help="Tokens that a chunk repeats from the previous one.")
]
ChunkPrefixTokens = Annotated[
    int | None, typer.Option(help="Tokens for title and headings before each chunk; 0 for none.")
]
MaxChunkCharacters = Annotated[int | None, typer.Option(help="Characters of a chunk at most.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="Path of the model's tokenizer.json on the chunkers' and embedders' machines."
    ),
]

_SETTINGS = (
    "tei_url",
    "max_chunk_tokens",
    "chunk_overlap_tokens",
    "chunk_prefix_tokens",
    "max_chunk_characters",
    "tokenizer",
)


@app.command("list")
def list_collections(as_json: Json = False) -> None:
    """List collections with their model and their own settings."""
    answer = ApiClient.from_environment().get("/api/collections")
    emit(answer, as_json=as_json, show=lambda: _show(answer["collections"]))


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters and digits, dots, dashes and underscores.")],
    tei_url: TeiUrl = None,
    max_chunk_tokens: MaxChunkTokens = None,
    chunk_overlap_tokens: ChunkOverlapTokens = None,
    chunk_prefix_tokens: ChunkPrefixTokens = None,
    max_chunk_characters: MaxChunkCharacters = None,
    tokenizer: Tokenizer = None,
    as_json: Json = False,
) -> None:
    """Create a collection with its own model or chunking.

    What is not given comes from the settings of the services. A collection that needs no setting of
    its own need not be created: its first document does that. `millstream reindex` changes the
    settings later.
    """
    request = {"name": name, **own_settings(context)}
    made = ApiClient.from_environment().post("/api/collections", request)
    emit(made, as_json=as_json, show=lambda: _show([made]))


def own_settings(context: typer.Context) -> dict[str, Any]:
    """The options above as they were given, by the names of the API."""
    return {name: context.params[name] for name in _SETTINGS}


def default_collection(api: ApiClient) -> str:
    """The collection of documents that name none. Ends the command if it has no document yet."""
    for collection in api.get("/api/collections")["collections"]:
        if collection["is_default"]:
            return str(collection["name"])
    raise typer.BadParameter(
        "the default collection has no documents yet; name one with --collection"
    )


def _show(collections: list[dict[str, Any]]) -> None:
    columns = ("name", "target", "model", "dimension", "tei_url", "max_chunk_tokens")
    rows = [[collection[name] for name in columns] for collection in collections]
    console().print(table(columns, rows))
