"""Request bodies as Structs: the decoder checks shapes, and a field that is not listed here is
refused.

Only the shape is checked here; `validation` has the rules, `filters`, `points` and `query` the
translation.
"""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

PointId: TypeAlias = int | str
Payload: TypeAlias = dict[str, Any]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=2**32 - 1)]


class Body(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object; absent and null fields mean the same."""


class SparseVector(Body):
    indices: list[int]
    values: list[float]


NamedVector: TypeAlias = list[float] | SparseVector
Vectors: TypeAlias = list[float] | dict[str, NamedVector]


# Filters


class FieldName(Body):
    key: str


class Match(Body, rename={"except_": "except"}):
    """Exactly one of these."""

    value: bool | int | str | None = None
    any: list[str | int] | None = None
    except_: list[str | int] | None = None
    prefix: str | None = None
    text: str | None = None
    text_any: str | None = None
    phrase: str | None = None
    substring: str | None = None


class Range(Body):
    """All bounds numbers, or all of them dates (RFC 3339)."""

    lt: float | str | None = None
    lte: float | str | None = None
    gt: float | str | None = None
    gte: float | str | None = None


class ValuesCount(Body):
    lt: Count | None = None
    lte: Count | None = None
    gt: Count | None = None
    gte: Count | None = None


class Filter(Body):
    must: "list[Condition] | Condition | None" = None
    should: "list[Condition] | Condition | None" = None
    must_not: "list[Condition] | Condition | None" = None
    min_should: "MinShould | None" = None


class MinShould(Body):
    conditions: "list[Condition]"
    min_count: Count


class Nested(Body):
    key: str
    filter: Filter


class Condition(Filter):
    """One condition, or (with the fields of Filter) a filter in its place."""

    key: str | None = None
    match: Match | None = None
    range: Range | None = None
    values_count: ValuesCount | None = None
    is_empty: bool | FieldName | None = None
    is_null: bool | FieldName | None = None
    has_id: list[PointId] | None = None
    has_vector: str | None = None
    nested: Nested | None = None


# Collections and aliases


class VectorParams(Body):
    size: Annotated[int, Meta(ge=1, le=65536)]
    distance: Literal["Cosine", "Euclid", "Dot", "Manhattan"]
    datatype: Literal["float32"] | None = None
    on_disk: bool | None = None
    memory: str | None = None
    hnsw_config: Payload | None = None


class SparseIndexParams(Body):
    full_scan_threshold: int | None = None
    on_disk: bool | None = None
    memory: str | None = None
    datatype: Literal["float32"] | None = None


class SparseVectorParams(Body):
    modifier: Literal["idf", "none"] | None = None
    index: SparseIndexParams | None = None


class CreateCollection(Body):
    """What a collection is made of. Fields that only tune a server are kept and reported, without
    effect.
    """

    vectors: Payload | None = None  # VectorParams, or these by name; see schema.dense_params
    sparse_vectors: dict[str, SparseVectorParams] | None = None
    metadata: Payload | None = None
    shard_number: Literal[1] | None = None
    replication_factor: Literal[1] | None = None
    write_consistency_factor: Literal[1] | None = None
    on_disk_payload: bool | None = None
    hnsw_config: Payload | None = None
    optimizers_config: Payload | None = None
    wal_config: Payload | None = None


class UpdateCollection(Body):
    metadata: Payload


class IndexParams(Body, tag_field="type"):
    """A payload index; one subclass per type, each with the parameters that the engine has."""

    on_disk: bool | None = None
    enable_hnsw: bool | None = None


class KeywordIndex(IndexParams, tag="keyword"):
    is_tenant: bool | None = None
    prefix: bool | None = None


class IntegerIndex(IndexParams, tag="integer"):
    lookup: bool | None = None
    range: bool | None = None
    is_principal: bool | None = None


class FloatIndex(IndexParams, tag="float"):
    is_principal: bool | None = None


class BoolIndex(IndexParams, tag="bool"):
    pass


class DatetimeIndex(IndexParams, tag="datetime"):
    is_principal: bool | None = None


class UuidIndex(IndexParams, tag="uuid"):
    is_tenant: bool | None = None


class TextIndex(IndexParams, tag="text"):
    tokenizer: Literal["prefix", "whitespace", "word", "multilingual"] | None = None
    min_token_len: Count | None = None
    max_token_len: Count | None = None
    lowercase: bool | None = None
    phrase_matching: bool | None = None


IndexSchema: TypeAlias = (
    KeywordIndex | IntegerIndex | FloatIndex | BoolIndex | DatetimeIndex | UuidIndex | TextIndex
)


class CreateIndex(Body):
    field_name: str
    field_schema: IndexSchema | str


class CreateAlias(Body):
    collection_name: str
    alias_name: str


class DeleteAlias(Body):
    alias_name: str


class RenameAlias(Body):
    old_alias_name: str
    new_alias_name: str


class AliasAction(Body):
    """Exactly one of these."""

    create_alias: CreateAlias | None = None
    delete_alias: DeleteAlias | None = None
    rename_alias: RenameAlias | None = None


class ChangeAliases(Body):
    actions: list[AliasAction]


# Points


class Point(Body):
    id: PointId
    vector: Vectors
    payload: Payload | None = None


class UpsertPoints(Body):
    points: list[Point]
    update_filter: Filter | None = None
    update_mode: Literal["upsert", "insert_only", "update_only"] | None = None


class Selector(Body):
    """Points by id or by filter: exactly one."""

    points: list[PointId] | None = None
    filter: Filter | None = None


class SetPayload(Selector, kw_only=True):
    payload: Payload
    key: str | None = None


class DeletePayload(Selector, kw_only=True):
    keys: list[str]


class BatchOperation(Body):
    """Exactly one of these."""

    upsert: UpsertPoints | None = None
    delete: Selector | None = None
    set_payload: SetPayload | None = None
    overwrite_payload: SetPayload | None = None
    delete_payload: DeletePayload | None = None
    clear_payload: Selector | None = None


class BatchUpdate(Body):
    operations: list[BatchOperation]


# Reads


class PayloadSelector(Body):
    """Exactly one of these."""

    include: list[str] | None = None
    exclude: list[str] | None = None


WithPayload: TypeAlias = bool | list[str] | PayloadSelector
WithVector: TypeAlias = bool | list[str]


class OrderBy(Body):
    key: str
    direction: Literal["asc", "desc"] | None = None
    start_from: int | float | str | None = None


class Retrieve(Body):
    ids: list[PointId]
    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None


class Scroll(Body):
    offset: PointId | None = None
    limit: Limit = 10
    filter: Filter | None = None
    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None
    order_by: str | OrderBy | None = None


class CountPoints(Body):
    filter: Filter | None = None
    exact: bool | None = None  # every count is exact


class Facet(Body):
    key: str
    limit: Limit = 10
    filter: Filter | None = None
    exact: bool | None = None  # every facet is exact


class SearchParams(Body):
    exact: bool | None = None  # every search is
    hnsw_ef: Count | None = None
    indexed_only: bool | None = None


class Rrf(Body):
    k: Limit | None = None
    weights: list[float] | None = None


class QueryObject(Body):
    """Exactly one of these; `indices` and `values` together are a bare sparse vector."""

    nearest: NamedVector | int | str | None = None
    fusion: Literal["rrf", "dbsf"] | None = None
    rrf: Rrf | None = None
    order_by: str | OrderBy | None = None
    indices: list[int] | None = None
    values: list[float] | None = None


class Prefetch(Body):
    prefetch: "list[Prefetch] | Prefetch | None" = None
    query: list[float] | QueryObject | int | str | None = None
    using: str | None = None
    filter: Filter | None = None
    params: SearchParams | None = None
    score_threshold: float | None = None
    limit: Limit = 10


class Query(Prefetch):
    offset: Count | None = None
    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None


class QueryBatch(Body):
    searches: list[Query]


class QueryGroups(Prefetch, kw_only=True):
    group_by: str
    group_size: Limit = 3
    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None
