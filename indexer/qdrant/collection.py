"""The collection in Qdrant: made once, recognised ever after. Points are written in store.py.

A collection carries the generation that Postgres knows for its target. Another generation under the
same name means that the store was lost or swapped, and everything that Postgres believes to be
indexed is not.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from qdrant_client import AsyncQdrantClient, models

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import MissingCollectionError, RefusedError, qdrant_errors, read_release
from indexer.qdrant.release import PREFIX, Release
from shared.service.errors import ConfigurationError

DENSE = "dense"
SPARSE = "bm25"
SCHEMA = 1  # of the payload

_KEYWORD = models.PayloadSchemaType.KEYWORD

# Filters on a field without an index scan the collection: a filter delete took 20-30 s.
PAYLOAD_INDEXES: dict[str, models.PayloadFieldSchema] = {
    "document_id": _KEYWORD,
    "version": models.PayloadSchemaType.INTEGER,
    "chunk_index": models.PayloadSchemaType.INTEGER,
    "url": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
    "domain": _KEYWORD,
    "language": _KEYWORD,
    "country": _KEYWORD,
    "is_mobile": models.PayloadSchemaType.BOOL,
    "crawl_id": _KEYWORD,
    "collection": _KEYWORD,
    "indexed_at": models.PayloadSchemaType.DATETIME,
}


class DimensionMismatchError(ConfigurationError):
    """The collection holds vectors of another length than the model makes."""

    def __init__(self, name: str, *, stored: int | None, wanted: int) -> None:
        holds = f"vectors of {stored} dimensions" if stored else f"no vector named {DENSE!r}"
        super().__init__(
            f"collection {name!r} holds {holds}, the model makes {wanted}: "
            "point WEBHOOK_TEI_URL to the model it was made with, or reindex into a new collection"
        )
        self.stored = stored
        self.wanted = wanted


class GenerationMismatchError(ConfigurationError):
    """The collection is not the one that Postgres knows; `stored` is None if millstream did not
    make it.
    """

    def __init__(self, name: str, *, stored: str | None, wanted: str) -> None:
        found = f"has generation {stored}" if stored else "was not made by millstream"
        super().__init__(
            f"collection {name!r} {found}, the database expects generation {wanted}: "
            "drop that collection and reindex, or set WEBHOOK_QDRANT_COLLECTION to another name"
        )
        self.stored = stored
        self.wanted = wanted


class CollectionMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept in Qdrant beside the collection."""

    generation: str
    keyword: KeywordParameters
    schema: int = SCHEMA


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection that is ready for points."""

    name: str
    dimension: int
    generation: str
    keyword: (
        KeywordParameters  # those its points have; may differ from today's settings until a reindex
    )
    is_new: bool  # this call made it; with live documents in the registry the store was lost


async def ensure_collection(
    client: AsyncQdrantClient,
    name: str,
    *,
    dimension: int,
    generation: str,
    keyword: KeywordParameters,
) -> Collection:
    """Make the collection and its payload indexes unless they are there; safe to call from many
    processes.

    Raises DimensionMismatchError or GenerationMismatchError for a collection that must not be
    written to, DependencyError if Qdrant is unavailable or too old.
    """
    wanted = CollectionMetadata(generation=generation, keyword=keyword)
    release = await read_release(client)
    info = await _find(client, name)
    is_new = info is None and await _create(client, name, dimension, wanted)
    if info is None:
        info = await _get(client, name)
    metadata = _check(name, info, dimension, wanted)
    await _create_indexes(client, name, info, release)
    return Collection(
        name=name,
        dimension=dimension,
        generation=generation,
        keyword=metadata.keyword,
        is_new=is_new,
    )


async def collection_exists(client: AsyncQdrantClient, name: str) -> bool:
    """Whether the collection exists. Raises DependencyError when Qdrant is unavailable.

    Asks for a plain yes or no: a 404 may also come from a proxy in front of a Qdrant that is down.
    """
    with qdrant_errors():
        return await client.collection_exists(name)


async def delete_collection(client: AsyncQdrantClient, name: str) -> bool:
    """Delete a collection with its points; False if there is none. Raises DependencyError."""
    if not await collection_exists(client, name):
        return False
    with qdrant_errors():
        return await client.delete_collection(name)


async def collection_names(client: AsyncQdrantClient) -> frozenset[str]:
    """Return the names of all collections. Raises DependencyError."""
    with qdrant_errors():
        return frozenset(found.name for found in (await client.get_collections()).collections)


async def alias_targets(client: AsyncQdrantClient) -> Mapping[str, str]:
    """Return the collection that each alias leads to. Raises DependencyError."""
    with qdrant_errors():
        return {
            alias.alias_name: alias.collection_name
            for alias in (await client.get_aliases()).aliases
        }


async def set_alias(
    client: AsyncQdrantClient, alias: str, name: str, known: Mapping[str, str]
) -> None:
    """Make `alias`, the collection's name for outsiders, lead to this collection. Millstream itself
    never uses it.

    `known` are the aliases that there are. Raises DependencyError.
    """
    if known.get(alias) == name:
        return
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=name, alias_name=alias)
    )
    with qdrant_errors():
        await client.update_collection_aliases([delete, create] if alias in known else [create])


async def _get(client: AsyncQdrantClient, name: str) -> models.CollectionInfo:
    with qdrant_errors():
        return await client.get_collection(name)


async def _find(client: AsyncQdrantClient, name: str) -> models.CollectionInfo | None:
    try:
        return await _get(client, name)
    except MissingCollectionError:
        return None


async def _create(
    client: AsyncQdrantClient, name: str, dimension: int, metadata: CollectionMetadata
) -> bool:
    """False if another process was faster."""
    try:
        with qdrant_errors():
            await client.create_collection(
                name,
                vectors_config={
                    DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={
                    SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)
                },
                metadata=msgspec.to_builtins(metadata),
            )
    except RefusedError:
        if await _find(client, name) is None:
            raise
        return False
    return True


async def _create_indexes(
    client: AsyncQdrantClient, name: str, info: models.CollectionInfo, release: Release | None
) -> None:
    for field, schema in PAYLOAD_INDEXES.items():
        stored = info.payload_schema.get(field)
        if stored is None or _can_be_better(stored, schema, release):
            with qdrant_errors():
                await client.create_payload_index(name, field, schema, wait=True)


def _can_be_better(
    stored: models.PayloadIndexInfo, wanted: models.PayloadFieldSchema, release: Release | None
) -> bool:
    """Whether the index was made by a release without prefixes, which ignored the option. Qdrant
    builds it anew.
    """
    needs_prefix = isinstance(wanted, models.KeywordIndexParams) and bool(wanted.prefix)
    has_prefix = isinstance(stored.params, models.KeywordIndexParams) and bool(stored.params.prefix)
    return needs_prefix and not has_prefix and release is not None and release >= PREFIX


def _check(
    name: str, info: models.CollectionInfo, dimension: int, wanted: CollectionMetadata
) -> CollectionMetadata:
    found = _metadata(info.config.metadata)
    if found is None or found.generation != wanted.generation:
        stored = found.generation if found else None
        raise GenerationMismatchError(name, stored=stored, wanted=wanted.generation)
    vectors = info.config.params.vectors
    dense = vectors.get(DENSE) if isinstance(vectors, dict) else None
    if dense is None or dense.size != dimension:
        raise DimensionMismatchError(name, stored=dense.size if dense else None, wanted=dimension)
    return found


def _metadata(stored: dict[str, Any] | None) -> CollectionMetadata | None:
    try:
        return msgspec.convert(stored, CollectionMetadata)
    except msgspec.ValidationError:
        return None
