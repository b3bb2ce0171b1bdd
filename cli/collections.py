"""`millstream collections`: which there are, and making one with settings of its own before its first document."""

from typing import Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit, table

app = typer.Typer(help="Collections: list, create.", no_args_is_help=True)

TeiUrl = Annotated[str | None, typer.Option(help="The embedding server, or several with commas between.")]
MaxChunkTokens = Annotated[int | None, typer.Option(help="All that the model sees of a chunk.")]
ChunkOverlapTokens = Annotated[int | None, typer.Option(help="What of it repeats the chunk before.")]
ChunkPrefixTokens = Annotated[int | None, typer.Option(help="What title and headings may take; 0 for none.")]
MaxChunkCharacters = Annotated[int | None, typer.Option(help="Characters of a chunk.")]
Tokenizer = Annotated[str | None, typer.Option(help="The model's tokenizer.json, where chunkers and embedders run.")]


@app.command("list")
def list_collections(as_json: Json = False) -> None:
    """List the collections with the settings that they have of their own."""
    answer = ApiClient.from_environment().get("/api/collections")
    emit(answer, as_json=as_json, show=lambda: _show(answer["collections"]))


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, dots, dashes and underscores.")],
    tei_url: TeiUrl = None,
    max_chunk_tokens: MaxChunkTokens = None,
    chunk_overlap_tokens: ChunkOverlapTokens = None,
    chunk_prefix_tokens: ChunkPrefixTokens = None,
    max_chunk_characters: MaxChunkCharacters = None,
    tokenizer: Tokenizer = None,
    as_json: Json = False,
) -> None:
    """Make a collection with settings of its own; others come to be with their first document."""
    made = ApiClient.from_environment().post("/api/collections", {"name": name, **own_settings(context)})
    emit(made, as_json=as_json, show=lambda: _show([made]))


def own_settings(context: typer.Context) -> dict[str, Any]:
    """What a command line says of the settings above, by their names."""
    names = ("tei_url", "max_chunk_tokens", "chunk_overlap_tokens", "chunk_prefix_tokens", "max_chunk_characters")
    return {name: context.params[name] for name in (*names, "tokenizer")}


def default_collection(api: ApiClient) -> str:
    """The collection of documents that name none. Ends the command if it has no document yet."""
    for collection in api.get("/api/collections")["collections"]:
        if collection["is_default"]:
            return str(collection["name"])
    raise typer.BadParameter("the default collection has no documents yet: say --collection")


def _show(collections: list[dict[str, Any]]) -> None:
    columns = ("name", "target", "model", "dimension", "tei_url", "max_chunk_tokens")
    console.print(table(columns, [[collection[name] for name in columns] for collection in collections]))
