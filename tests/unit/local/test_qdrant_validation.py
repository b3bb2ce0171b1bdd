"""What the embedded vector store refuses before its engine sees it."""

import math
import uuid
from typing import Any

import msgspec
import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st

from local.qdrant import bodies, points, validation
from local.qdrant.errors import ApiError
from local.qdrant.filters import MAX_DEPTH, to_filter
from local.qdrant.query import MAX_PREFETCH_DEPTH, query_request
from local.qdrant.schema import check_collection, ineffective_settings, vector_schema

SCHEMA = validation.VectorSchema(dense={"dense": 2}, sparse=frozenset({"bm25"}))

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
point_ids = (
    st.integers(0, 2**64 - 1) | st.uuids().map(str) | st.uuids().map(lambda found: found.hex)
)


def sparse(indices: list[int], values: list[float]) -> bodies.SparseVector:
    return bodies.SparseVector(indices=indices, values=values)


def point(vector: Any, payload: Any = None, point_id: Any = 1) -> bodies.Point:
    return bodies.Point(id=point_id, vector=vector, payload=payload)


def refusal(*found: bodies.Point) -> ApiError:
    with pytest.raises(ApiError) as caught:
        validation.check_points(list(found), SCHEMA)
    return caught.value


def nested(depth: int, *, lists: bool = False) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth - 1):
        value = [value] if lists else {"a": value}
    return {"a": value}


def decoded(body: str, body_type: Any) -> Any:
    return msgspec.json.decode(body, type=body_type)


@given(point_ids)
def test_an_id_that_passes_is_one_the_engine_takes(point_id: Any) -> None:
    assert validation.is_point_id(point_id)
    assert str(edge.Point(point_id, {}, None).id).replace("-", "") == str(point_id).replace("-", "")


@pytest.mark.parametrize(
    "point_id", [-1, 2**64, True, "", "1", "not-a-uuid", str(uuid.UUID(int=1)) + "0"]
)
def test_an_id_that_is_neither_unsigned_nor_a_uuid_is_refused(point_id: Any) -> None:
    assert not validation.is_point_id(point_id)
    assert refusal(point({}, point_id=point_id)).status == 400


@given(st.lists(finite, min_size=2, max_size=2))
def test_a_vector_of_finite_floats_passes_unless_its_length_overflows(vector: list[float]) -> None:
    fits = math.hypot(*vector) <= 3.4028234663852886e38
    try:
        validation.check_vectors({"dense": vector}, SCHEMA)
    except ApiError:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e39])
@pytest.mark.parametrize("at", [0, 1])
def test_a_value_that_is_no_finite_float32_is_refused_at_any_place(value: float, at: int) -> None:
    values = [1.0, 1.0]
    values[at] = value
    assert refusal(point({"dense": values})).status == 422
    assert refusal(point({"bm25": sparse([1, 2], values)})).status == 422


@pytest.mark.parametrize(
    ("vector", "status", "reason"),
    [
        ({"dense": [1.0]}, 400, "expected dim: 2, got 1"),
        ([1.0, 2.0], 400, "Not existing vector name error: "),
        ({"other": [1.0, 2.0]}, 400, "Not existing vector name error: other"),
        ({"dense": sparse([1], [1.0])}, 400, "'dense' is dense"),
        ({"bm25": [1.0]}, 400, "'bm25' is sparse"),
        ({"bm25": sparse([1, 2], [1.0])}, 422, "same length"),
        ({"bm25": sparse([1], [1.0, 2.0])}, 422, "same length"),
        ({"bm25": sparse([2, 1, 2], [1.0, 1.0, 1.0])}, 422, "unique"),
        ({"bm25": sparse([-1], [1.0])}, 422, "from 0 to 4294967295"),
        ({"bm25": sparse([2**32], [1.0])}, 422, "from 0 to 4294967295"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_with_the_reason(
    vector: Any, status: int, reason: str
) -> None:
    error = refusal(point({"dense": [1.0, 0.0]}), point(vector))
    assert (error.status, reason in error.message) == (status, True)


def test_a_collections_only_vector_has_no_name() -> None:
    schema = vector_schema(
        decoded('{"vectors": {"size": 2, "distance": "Dot"}}', bodies.CreateCollection)
    )
    validation.check_points([point([1.0, 2.0]), point({"": [1.0, 2.0]})], schema)


def test_no_points_at_all_are_refused() -> None:
    assert "Empty update request" in refusal().message


@pytest.mark.parametrize("lists", [True, False])
def test_a_payload_is_refused_one_level_below_the_limit(lists: bool) -> None:
    validation.check_payload(nested(validation.MAX_PAYLOAD_DEPTH, lists=lists))
    with pytest.raises(ApiError, match="deeper than 64"):
        validation.check_payload(nested(validation.MAX_PAYLOAD_DEPTH + 1, lists=lists))


def test_the_deepest_branch_of_a_payload_counts() -> None:
    payload = {"flat": [1, 2], "wide": [{}, nested(validation.MAX_PAYLOAD_DEPTH)], "text": "x"}
    assert refusal(point({}, payload)).status == 422


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\0b", "x" * 256, "ü" * 128]
)
def test_a_name_that_is_no_directory_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as caught:
        validation.check_collection_name(name)
    assert caught.value.status == 422


@pytest.mark.parametrize("name", ["docs", "a b", "ü" * 127, "docs_1.2-3"])
def test_any_other_name_is_fine(name: str) -> None:
    validation.check_collection_name(name)


def test_a_filter_is_refused_when_it_is_nested_too_deeply() -> None:
    def filter_of(depth: int) -> bodies.Filter:
        body = bodies.Filter(must=[bodies.Condition(key="a", match=bodies.Match(value=1))])
        for level in range(depth - 1):
            inside = bodies.Condition(nested=bodies.Nested(key="n", filter=body))
            deeper = bodies.MinShould(conditions=[inside], min_count=1)
            body = (
                bodies.Filter(must_not=[inside]) if level % 2 else bodies.Filter(min_should=deeper)
            )
        return body

    to_filter(filter_of(MAX_DEPTH))
    with pytest.raises(ApiError, match="nested deeper"):
        to_filter(filter_of(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "condition",
    [
        "{}",
        '{"key": "a"}',
        '{"match": {"value": 1}}',
        '{"key": "a", "match": {}}',
        '{"key": "a", "match": {"value": 1, "text": "x"}}',
        '{"key": "a", "match": {"any": [1, "x"]}}',
        '{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}',
        '{"key": "a", "range": {"gt": 1, "lt": "2024-01-01T00:00:00Z"}}',
        '{"key": "a", "is_empty": {"key": "b"}}',
        '{"key": "a", "has_id": [1]}',
        '{"has_id": [1], "has_vector": "dense"}',
        '{"has_id": ["x"]}',
        '{"has_id": [1], "must": []}',
    ],
)
def test_a_condition_that_says_nothing_clear_is_refused(condition: str) -> None:
    body = decoded(f'{{"must": [{condition}]}}', bodies.Filter)
    with pytest.raises(ApiError) as caught:
        to_filter(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "body_type"),
    [
        ('{"must": [{"key": "a", "geo_radius": {}}]}', bodies.Filter),
        ('{"query": {"recommend": {"positive": [1]}}}', bodies.Query),
        ('{"query": {"nearest": [1.0], "mmr": {}}}', bodies.Query),
        ('{"query": [1.0], "lookup_from": {"collection": "x"}}', bodies.Query),
        ('{"query": [1.0], "limit": 0}', bodies.Query),
        ('{"points": [{"id": 1, "vector": {"dense": [[1.0]]}}]}', bodies.UpsertPoints),
        ('{"points": [{"id": 1.5, "vector": {}}]}', bodies.UpsertPoints),
        ('{"points": [{"id": true, "vector": {}}]}', bodies.UpsertPoints),
        ('{"points": [{"id": 1, "vector": {"dense": [true]}}]}', bodies.UpsertPoints),
        ('{"points": [{"id": 1, "vector": {}, "extra": 1}]}', bodies.UpsertPoints),
        ('{"batch": {"ids": [1]}}', bodies.UpsertPoints),
        ('{"quantization_config": {}}', bodies.CreateCollection),
        ('{"shard_number": 2}', bodies.CreateCollection),
        ('{"field_name": "a", "field_schema": {"type": "geo"}}', bodies.CreateIndex),
        ('{"operations": [{"update_vectors": {}}]}', bodies.BatchUpdate),
    ],
)
def test_what_is_not_supported_is_refused_and_not_ignored(body: str, body_type: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded(body, body_type)


@pytest.mark.parametrize(
    "query",
    [
        '{"query": 7}',
        '{"query": {"nearest": 7}, "using": "dense"}',
        '{"query": {}}',
        '{"query": {"indices": [1]}}',
        '{"query": {"rrf": {}, "fusion": "rrf"}}',
        '{"query": {"fusion": "rrf"}, "using": "dense"}',
        '{"query": [1.0], "using": "dense"}',
        '{"query": [1.0, 2.0]}',
        '{"query": {"indices": [1, 1], "values": [1.0, 1.0]}, "using": "bm25"}',
    ],
)
def test_a_query_that_does_not_fit_the_collection_is_refused(query: str) -> None:
    with pytest.raises(ApiError):
        query_request(decoded(query, bodies.Query), SCHEMA)


def test_prefetches_are_refused_when_they_are_nested_too_deeply() -> None:
    def query_of(depth: int) -> bodies.Query:
        inner = bodies.Prefetch(query=[1.0, 0.0], using="dense")
        for _ in range(depth - 1):
            inner = bodies.Prefetch(prefetch=[inner], query=bodies.QueryObject(fusion="rrf"))
        return bodies.Query(prefetch=inner, query=bodies.QueryObject(fusion="rrf"))

    query_request(query_of(MAX_PREFETCH_DEPTH), SCHEMA)
    with pytest.raises(ApiError, match="nested deeper"):
        query_request(query_of(MAX_PREFETCH_DEPTH + 1), SCHEMA)


@pytest.mark.parametrize(
    "collection",
    [
        "{}",
        '{"vectors": {"a": {"size": 2}}}',
        '{"vectors": {"size": 0, "distance": "Dot"}}',
        '{"vectors": {"a": {"size": 2, "distance": "Dot", "quantization_config": {}}}}',
        '{"vectors": {"a": {"size": 2, "distance": "Dot"}}, "sparse_vectors": {"a": {}}}',
        '{"sparse_vectors": {"": {}}}',
    ],
)
def test_a_collection_without_usable_vectors_is_refused(collection: str) -> None:
    with pytest.raises(ApiError):
        check_collection(decoded(collection, bodies.CreateCollection))


def test_settings_that_only_tune_a_server_are_named() -> None:
    body = decoded(
        '{"sparse_vectors": {"a": {}}, "hnsw_config": {"m": 8}, "on_disk_payload": true}',
        bodies.CreateCollection,
    )
    check_collection(body)
    assert ineffective_settings(body) == ["hnsw_config", "on_disk_payload"]


def test_points_are_selected_by_ids_or_by_a_filter_and_not_by_both() -> None:
    for body in ("{}", '{"points": [1], "filter": {}}', '{"points": ["x"]}'):
        with pytest.raises(ApiError):
            points.delete(decoded(body, bodies.Selector), SCHEMA)


def test_one_bad_operation_refuses_a_whole_batch() -> None:
    body = decoded(
        (
            '{"operations": [{"delete": {"points": [1]}}, '
            '{"upsert": {"points": [{"id": 1, "vector": {"dense": [1]}}]}}]}'
        ),
        bodies.BatchUpdate,
    )
    with pytest.raises(ApiError, match="expected dim: 2, got 1"):
        points.batch(body, SCHEMA)
