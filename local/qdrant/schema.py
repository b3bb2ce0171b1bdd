"""What a collection is made of: its settings for the engine, and as the client sees them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import qdrant_edge as edge

from local.qdrant import bodies
from local.qdrant.errors import ApiError
from local.qdrant.validation import UNNAMED, VectorSchema, check_payload

# Above any size in KB: no HNSW graph is ever built, every search is exact.
_NEVER_INDEX = 10**9

_DISTANCES: Final = {
    "Cosine": edge.Distance.Cosine,
    "Euclid": edge.Distance.Euclid,
    "Dot": edge.Distance.Dot,
    "Manhattan": edge.Distance.Manhattan,
}
_INDEXES: Final[Mapping[type[bodies.IndexParams], Any]] = {
    bodies.KeywordIndex: edge.KeywordIndexParams,
    bodies.IntegerIndex: edge.IntegerIndexParams,
    bodies.FloatIndex: edge.FloatIndexParams,
    bodies.BoolIndex: edge.BoolIndexParams,
    bodies.DatetimeIndex: edge.DatetimeIndexParams,
    bodies.UuidIndex: edge.UuidIndexParams,
    bodies.TextIndex: edge.TextIndexParams,
}
_TOKENIZERS: Final = {
    "prefix": edge.TokenizerType.Prefix,
    "whitespace": edge.TokenizerType.Whitespace,
    "word": edge.TokenizerType.Word,
    "multilingual": edge.TokenizerType.Multilingual,
}
# Settings of a server that the client expects to read back; here they have no effect.
_HNSW: Final = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10_000,
    "max_indexing_threads": 0,
}
_OPTIMIZERS: Final = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}
_TUNING = ("hnsw_config", "optimizers_config", "wal_config", "on_disk_payload")


def check_collection(body: bodies.CreateCollection) -> None:
    """The vectors have names of their own, and there is at least one."""
    dense, sparse = dense_params(body), body.sparse_vectors or {}
    if not dense and not sparse:
        raise ApiError.wrong_input("a collection needs at least one vector")
    if UNNAMED in sparse:
        raise ApiError.wrong_input("Sparse vector name cannot be empty")
    if both := sorted(dense.keys() & sparse.keys()):
        raise ApiError.wrong_input(
            f"dense and sparse vectors with the same name: {', '.join(both)}"
        )
    check_payload(body.metadata or {})


def ineffective_settings(body: bodies.CreateCollection) -> list[str]:
    """Fields that tune a real server and change nothing here."""
    return [name for name in _TUNING if getattr(body, name) is not None]


def dense_params(body: bodies.CreateCollection) -> Mapping[str, bodies.VectorParams]:
    """Dense vectors by name; a collection may have just one, without a name."""
    given = body.vectors or {}
    try:
        if isinstance(given.get("size"), int):
            return {UNNAMED: msgspec.convert(given, bodies.VectorParams)}
        return msgspec.convert(given, dict[str, bodies.VectorParams])
    except msgspec.ValidationError as error:
        raise ApiError.malformed(error) from error


def vector_schema(body: bodies.CreateCollection) -> VectorSchema:
    return VectorSchema(
        dense={name: params.size for name, params in dense_params(body).items()},
        sparse=frozenset(body.sparse_vectors or {}),
    )


def engine_config(body: bodies.CreateCollection) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(params.size, _DISTANCES[params.distance])
            for name, params in dense_params(body).items()
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(
                modifier=edge.Modifier.Idf if params.modifier == "idf" else None
            )
            for name, params in (body.sparse_vectors or {}).items()
        },
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NEVER_INDEX),
    )


def index_operation(body: bodies.CreateIndex) -> edge.UpdateOperation:
    """The operation that makes a payload index; the schema is a type's name or its parameters."""
    schema = body.field_schema
    if isinstance(schema, str):
        try:
            schema = msgspec.convert({"type": schema}, bodies.IndexSchema)
        except msgspec.ValidationError as error:
            raise ApiError.malformed(error) from error
    given = {
        name: value
        for name in schema.__struct_fields__
        if (value := getattr(schema, name)) is not None
    }
    if "tokenizer" in given:
        given["tokenizer"] = _TOKENIZERS[given["tokenizer"]]
    return edge.UpdateOperation.create_field_index(body.field_name, _INDEXES[type(schema)](**given))


def collection_info(body: bodies.CreateCollection, info: "edge.ShardInfo") -> dict[str, Any]:
    """A collection as `GET /collections/{name}` shows it."""
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": 0,
        "points_count": info.points_count,
        "segments_count": info.segments_count,
        "config": {
            "params": {
                "vectors": body.vectors or {},
                "sparse_vectors": body.sparse_vectors,
                "shard_number": 1,
                "replication_factor": 1,
                "write_consistency_factor": 1,
                "on_disk_payload": bool(body.on_disk_payload),
            },
            "hnsw_config": {**_HNSW, **(body.hnsw_config or {})},
            "optimizer_config": {
                **_OPTIMIZERS,
                "indexing_threshold": 0,
                **(body.optimizers_config or {}),
            },
            "wal_config": {
                "wal_capacity_mb": 32,
                "wal_segments_ahead": 0,
                **(body.wal_config or {}),
            },
            "metadata": body.metadata,
        },
        "payload_schema": {name: _index_info(index) for name, index in info.payload_schema.items()},
    }


def _index_info(index: "edge.PayloadIndexInfo") -> dict[str, Any]:
    schema = next(schema for schema, params in _INDEXES.items() if isinstance(index.params, params))
    fields = {name: _plain(getattr(index.params, name)) for name in schema.__struct_fields__}
    kind = schema.__struct_config__.tag
    return {"data_type": kind, "params": {"type": kind, **fields}, "points": index.points}


def _plain(value: Any) -> Any:
    """A parameter as JSON: the engine's tokenizers by name."""
    return next((name for name, tokenizer in _TOKENIZERS.items() if tokenizer == value), value)
