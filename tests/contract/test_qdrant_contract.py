"""The embedded vector store and the client's own in-memory engine give the same, known answers."""

import datetime as dt
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from indexer.qdrant.client import make_client, read_release
from indexer.qdrant.release import Release
from shared.service.settings import QdrantSettings
from tests.support.outside import own_name
from tests.support.qdrant_process import running_qdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

NAME = own_name("books")
ALIAS = own_name("rack")
NOON = dt.datetime(2024, 1, 3, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
KEYWORD, INTEGER = models.PayloadSchemaType.KEYWORD, models.PayloadSchemaType.INTEGER
VECTORS = {"dense": models.VectorParams(size=3, distance=models.Distance.COSINE)}
REFUSED = (UnexpectedResponse, ValueError)  # what the server and the in-memory engine raise

DENSE = {
    1: [1.0, 0.0, 0.0],
    2: [0.8, 0.6, 0.0],
    3: [0.0, 1.0, 0.0],
    4: [0.0, 0.6, 0.8],
    5: [-1.0, 0.2, 0.1],
}
SPARSE = {1: {7: 1.0, 8: 2.0}, 2: {7: 0.5}, 3: {7: 1.0, 9: 3.0}, 4: {9: 1.0}, 5: {6: 1.0}}
PAYLOADS: dict[int, dict[str, Any]] = {
    1: {
        "title": "ant",
        "year": 1990,
        "tags": ["a", "b"],
        "is_new": False,
        "at": "2024-01-01T00:00:00Z",
    },
    2: {"title": "ape", "year": 1991, "tags": ["b"], "is_new": True, "at": "2024-01-02T00:00:00Z"},
    3: {
        "title": "bee",
        "year": 1992,
        "tags": [],
        "is_new": True,
        "at": "2024-01-03T12:00:00+02:00",
    },
    4: {"title": "bee", "year": 1993, "note": None, "price": 9.5, "at": "2024-01-04T00:00:00Z"},
    5: {
        "title": "cat",
        "year": 1994,
        "offers": [{"shop": "x", "sold": 1}, {"shop": "y", "sold": 2}],
    },
}


def point(point_id: int) -> models.PointStruct:
    sparse = models.SparseVector(
        indices=list(SPARSE[point_id]), values=list(SPARSE[point_id].values())
    )
    vector: dict[str, Any] = {"dense": DENSE[point_id], "bm25": sparse}
    return models.PointStruct(id=point_id, vector=vector, payload=PAYLOADS[point_id])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    data_dir: Path = tmp_path_factory.mktemp("qdrant") / "data"
    with running_qdrant(data_dir) as settings:
        yield settings


@pytest.fixture(params=["memory", "server"])
async def empty(request: pytest.FixtureRequest) -> AsyncIterator[AsyncQdrantClient]:
    """A client of each backend, with an empty collection."""
    is_server = request.param == "server"
    client = (
        make_client(request.getfixturevalue("server"))
        if is_server
        else AsyncQdrantClient(":memory:")
    )
    await client.delete_collection(NAME)
    await client.create_collection(
        NAME,
        vectors_config=VECTORS,
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        metadata={"generation": "g1"},
    )
    yield client
    await client.close()


@pytest.fixture
async def client(empty: AsyncQdrantClient) -> AsyncQdrantClient:
    """A client of each backend, with five points and their payload indexes."""
    for field, schema in {"title": KEYWORD, "year": INTEGER, "tags": KEYWORD}.items():
        await empty.create_payload_index(NAME, field, schema)
    await empty.upsert(NAME, [point(point_id) for point_id in DENSE], wait=True)
    return empty


async def ids_of(client: AsyncQdrantClient, where: models.Filter | None = None) -> set[Any]:
    records, _ = await client.scroll(NAME, scroll_filter=where, limit=100, with_payload=False)
    return {record.id for record in records}


async def payload_of(client: AsyncQdrantClient, point_id: int) -> Any:
    return (await client.retrieve(NAME, [point_id]))[0].payload


def field(key: str, **test: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **test)


def equals(key: str, value: bool | int | str) -> models.FieldCondition:
    return field(key, match=models.MatchValue(value=value))


def scores_of(points: list[models.ScoredPoint]) -> dict[Any, float]:
    return {hit.id: hit.score for hit in points}


def sparse(*indices: int) -> models.SparseVector:
    return models.SparseVector(indices=list(indices), values=[1.0] * len(indices))


def idf(matching: int, total: int = len(SPARSE)) -> float:
    return math.log(1 + (total - matching + 0.5) / (matching + 0.5))


async def test_dense_scores_are_cosines_and_best_come_first(client: AsyncQdrantClient) -> None:
    query = [0.9, 0.1, 0.2]
    found = (await client.query_points(NAME, query=query, using="dense", limit=10)).points
    cosines = {
        key: float(np.dot(vector, query) / np.linalg.norm(vector) / np.linalg.norm(query))
        for key, vector in DENSE.items()
    }
    assert scores_of(found) == pytest.approx(cosines, abs=1e-6)
    assert [hit.id for hit in found] == sorted(cosines, key=lambda key: -cosines[key])


async def test_sparse_scores_are_weighted_by_inverse_document_frequency(
    client: AsyncQdrantClient,
) -> None:
    found = (await client.query_points(NAME, query=sparse(7, 9), using="bm25")).points
    expected = {1: idf(3), 2: 0.5 * idf(3), 3: idf(3) + 3 * idf(2), 4: idf(2)}
    assert scores_of(found) == pytest.approx(expected, abs=1e-5)


async def test_a_term_gets_rarer_as_points_without_it_are_added(client: AsyncQdrantClient) -> None:
    more = [
        models.PointStruct(id=10 + n, vector={"bm25": sparse(99)}, payload={}) for n in range(5)
    ]
    await client.upsert(NAME, more, wait=True)
    found = (await client.query_points(NAME, query=sparse(8), using="bm25")).points
    assert scores_of(found) == pytest.approx({1: 2 * idf(1, total=10)}, abs=1e-5)


@pytest.mark.parametrize(("k", "weights"), [(2, None), (61, None), (61, [3.0, 1.0])])
async def test_fusion_adds_reciprocal_ranks(
    client: AsyncQdrantClient, k: int, weights: list[float] | None
) -> None:
    prefetch = [
        models.Prefetch(query=[0.0, 1.0, 0.1], using="dense", limit=2),  # finds 3, then 4
        models.Prefetch(
            query=sparse(7),
            using="bm25",
            limit=2,
            filter=models.Filter(must=[equals("year", 1990)]),
        ),
    ]
    query = models.RrfQuery(rrf=models.Rrf(k=k, weights=weights))
    found = (await client.query_points(NAME, prefetch=prefetch, query=query)).points
    first, second = weights if weights and await has_weights(client) else [1.0, 1.0]
    # Position from 0, weighted as the server does it: 1 / ((position + 1) / weight + k - 1).
    expected = {3: 1 / (1 / first + k - 1), 4: 1 / (2 / first + k - 1), 1: 1 / (1 / second + k - 1)}
    assert scores_of(found) == pytest.approx(expected, abs=1e-6)


async def has_weights(client: AsyncQdrantClient) -> bool:
    """Whether the server knows weights in a fusion; older ones ignore them."""
    return (await read_release(client) or Release(0, 0)) >= Release(1, 17)


async def test_plain_rrf_has_a_default_k(client: AsyncQdrantClient) -> None:
    prefetch = [models.Prefetch(query=sparse(9), using="bm25", limit=1)]
    found = await client.query_points(
        NAME, prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.RRF)
    )
    assert scores_of(found.points) == pytest.approx({3: 0.5})


async def test_limit_offset_and_threshold_cut_the_hits(client: AsyncQdrantClient) -> None:
    async def ids(**options: Any) -> list[Any]:
        answer = await client.query_points(NAME, query=[1.0, 0.0, 0.0], using="dense", **options)
        return [hit.id for hit in answer.points]

    assert await ids(limit=2) == [1, 2]
    assert await ids(limit=1, offset=1) == [2]
    assert await ids(limit=10, score_threshold=0.5) == [1, 2]
    assert await ids(limit=10, query_filter=models.Filter(must=[equals("year", 1991)])) == [2]


async def test_several_queries_are_answered_in_order(client: AsyncQdrantClient) -> None:
    requests = [
        models.QueryRequest(query=[1.0, 0.0, 0.0], using="dense", limit=1),
        models.QueryRequest(query=sparse(9), using="bm25", limit=1, with_payload=["title"]),
    ]
    first, second = await client.query_batch_points(NAME, requests)
    assert [hit.id for hit in first.points] == [1]
    assert [(hit.id, hit.payload) for hit in second.points] == [(3, {"title": "bee"})]


FILTERS: list[tuple[str, models.Filter, set[int]]] = [
    ("value", models.Filter(must=[equals("title", "bee")]), {3, 4}),
    ("integer", models.Filter(must=[equals("year", 1994)]), {5}),
    ("true", models.Filter(must=[equals("is_new", True)]), {2, 3}),
    ("false", models.Filter(must=[equals("is_new", False)]), {1}),
    ("inside a list", models.Filter(must=[equals("tags", "b")]), {1, 2}),
    (
        "any",
        models.Filter(must=[field("title", match=models.MatchAny(any=["ant", "cat"]))]),
        {1, 5},
    ),
    ("any of nothing", models.Filter(must=[field("title", match=models.MatchAny(any=[]))]), set()),
    (
        "except",
        models.Filter(
            must=[field("title", match=models.MatchExcept(**{"except": ["bee", "cat"]}))]
        ),
        {1, 2},
    ),
    ("prefix", models.Filter(must=[field("title", match=models.MatchPrefix(prefix="a"))]), {1, 2}),
    ("range", models.Filter(must=[field("year", range=models.Range(gt=1990, lte=1992))]), {2, 3}),
    ("float range", models.Filter(must=[field("price", range=models.Range(gte=9.5))]), {4}),
    ("dates", models.Filter(must=[field("at", range=models.DatetimeRange(gte=NOON))]), {3, 4}),
    ("dates, open", models.Filter(must=[field("at", range=models.DatetimeRange(gt=NOON))]), {4}),
    ("ids", models.Filter(must=[models.HasIdCondition(has_id=[1, 4, 77])]), {1, 4}),
    (
        "empty",
        models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))]),
        {3, 4, 5},
    ),
    (
        "null",
        models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="note"))]),
        {4},
    ),
    ("count", models.Filter(must=[field("tags", values_count=models.ValuesCount(gte=2))]), {1}),
    ("nothing", models.Filter(), {1, 2, 3, 4, 5}),
    ("not", models.Filter(must_not=[equals("title", "bee"), equals("year", 1990)]), {2, 5}),
    ("should", models.Filter(should=[equals("year", 1990), equals("title", "cat")]), {1, 5}),
    (
        "min should",
        models.Filter(
            min_should=models.MinShould(
                conditions=[equals("title", "bee"), equals("year", 1992), equals("is_new", True)],
                min_count=2,
            )
        ),
        {3},
    ),
    (
        "a filter in a filter",
        models.Filter(
            must=[models.Filter(should=[equals("year", 1990), equals("year", 1991)])],
            must_not=[equals("is_new", True)],
        ),
        {1},
    ),
    (
        "one element of a list",
        models.Filter(
            must=[
                models.NestedCondition(
                    nested=models.Nested(
                        key="offers",
                        filter=models.Filter(must=[equals("shop", "x"), equals("sold", 1)]),
                    )
                )
            ]
        ),
        {5},
    ),
    ("a path through lists", models.Filter(must=[equals("offers[].shop", "y")]), {5}),
]


@pytest.mark.parametrize(
    ("where", "expected"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS]
)
async def test_a_filter_selects(
    client: AsyncQdrantClient, where: models.Filter, expected: set[int]
) -> None:
    assert await ids_of(client, where) == expected
    assert (await client.count(NAME, count_filter=where, exact=True)).count == len(expected)


async def test_points_are_deleted_by_id_and_by_filter(client: AsyncQdrantClient) -> None:
    await client.delete(NAME, [1, 77], wait=True)
    await client.delete(NAME, models.Filter(must=[equals("title", "bee")]), wait=True)
    assert await ids_of(client) == {2, 5}
    hits = (await client.query_points(NAME, query=[1.0, 0.0, 0.0], using="dense")).points
    assert {hit.id for hit in hits} == {2, 5}


async def test_scrolling_visits_every_point_once_in_order(client: AsyncQdrantClient) -> None:
    seen: list[Any] = []
    offset: Any = None
    while True:
        records, offset = await client.scroll(NAME, limit=2, offset=offset, with_vectors=["dense"])
        seen += [record.id for record in records]
        assert all(record.payload == PAYLOADS[int(record.id)] for record in records)
        if offset is None:
            break
    assert seen == [1, 2, 3, 4, 5]


async def test_scrolling_by_a_field_follows_it(client: AsyncQdrantClient) -> None:
    order = models.OrderBy(key="year", direction=models.Direction.DESC, start_from=1993)
    records, offset = await client.scroll(NAME, limit=2, order_by=order)
    assert [record.id for record in records] == [4, 3]
    assert offset is None


async def test_groups_are_ordered_by_their_best_hit(client: AsyncQdrantClient) -> None:
    answer = await client.query_points_groups(
        NAME,
        "title",
        query=[0.0, 1.0, 0.1],
        using="dense",
        limit=3,
        group_size=2,
        with_payload=["year"],
    )
    assert [(group.id, [hit.id for hit in group.hits]) for group in answer.groups] == [
        ("bee", [3, 4]),
        ("ape", [2]),
        ("cat", [5]),
    ]
    assert [hit.payload for hit in answer.groups[0].hits] == [{"year": 1992}, {"year": 1993}]


async def test_a_point_is_in_the_group_of_each_of_its_values(client: AsyncQdrantClient) -> None:
    answer = await client.query_points_groups(
        NAME, "tags", query=[1.0, 0.0, 0.0], using="dense", group_size=5
    )
    assert {group.id: [hit.id for hit in group.hits] for group in answer.groups} == {
        "a": [1],
        "b": [1, 2],
    }


async def test_facets_count_the_values_of_a_field(client: AsyncQdrantClient) -> None:
    answer = await client.facet(NAME, "title", exact=True)
    assert (answer.hits[0].value, answer.hits[0].count) == ("bee", 2)
    assert {hit.value: hit.count for hit in answer.hits} == {"bee": 2, "ant": 1, "ape": 1, "cat": 1}
    narrowed = await client.facet(
        NAME, "tags", facet_filter=models.Filter(must=[equals("year", 1990)]), exact=True
    )
    assert {hit.value: hit.count for hit in narrowed.hits} == {"a": 1, "b": 1}


async def test_payloads_are_merged_replaced_and_cleared(client: AsyncQdrantClient) -> None:
    await client.set_payload(NAME, {"year": 2000, "new": "x"}, points=[2], wait=True)
    assert await payload_of(client, 2) == {**PAYLOADS[2], "year": 2000, "new": "x"}
    await client.delete_payload(NAME, ["new", "tags"], points=[2], wait=True)
    assert await payload_of(client, 2) == {
        k: v for k, v in {**PAYLOADS[2], "year": 2000}.items() if k != "tags"
    }
    await client.overwrite_payload(NAME, {"only": 1}, points=[2], wait=True)
    assert await payload_of(client, 2) == {"only": 1}
    await client.clear_payload(NAME, [2], wait=True)
    assert await payload_of(client, 2) == {}


async def test_a_payload_is_set_by_filter_and_under_a_key(client: AsyncQdrantClient) -> None:
    where = models.Filter(must=[equals("title", "bee")])
    await client.set_payload(NAME, {"inner": True}, points=where, key="outer", wait=True)
    assert {key: (await payload_of(client, key)).get("outer") for key in (3, 4, 5)} == {
        3: {"inner": True},
        4: {"inner": True},
        5: None,
    }


async def test_a_batch_applies_its_operations_in_order(client: AsyncQdrantClient) -> None:
    await client.batch_update_points(
        NAME,
        [
            models.DeleteOperation(delete=models.PointIdsList(points=[1, 2])),
            models.UpsertOperation(upsert=models.PointsList(points=[point(1)])),
            models.SetPayloadOperation(
                set_payload=models.SetPayload(payload={"batch": 1}, points=[1])
            ),
            models.DeleteOperation(
                delete=models.FilterSelector(filter=models.Filter(must=[equals("year", 1994)]))
            ),
        ],
        wait=True,
    )
    assert await ids_of(client) == {1, 3, 4}
    assert await payload_of(client, 1) == {**PAYLOADS[1], "batch": 1}


async def test_an_upsert_can_be_repeated_and_replaces_the_point(client: AsyncQdrantClient) -> None:
    for _ in range(2):
        await client.upsert(NAME, [point(point_id) for point_id in DENSE], wait=True)
    assert (await client.count(NAME, exact=True)).count == len(DENSE)
    await client.upsert(
        NAME, [models.PointStruct(id=1, vector={"dense": [0.0, 0.0, 2.0]}, payload={"n": 1})]
    )
    record = (await client.retrieve(NAME, [1], with_vectors=True))[0]
    assert record.payload == {"n": 1}
    assert record.vector == {"dense": [0.0, 0.0, 1.0]}


async def test_an_upsert_with_a_condition_replaces_only_what_fits(
    client: AsyncQdrantClient,
) -> None:
    older = models.Filter(must=[field("year", range=models.Range(lt=1992))])
    changed = [models.PointStruct(id=n, vector={}, payload={"year": 1}) for n in (1, 3, 9)]
    await client.upsert(NAME, changed, update_filter=older, wait=True)
    years = {
        record.id: (record.payload or {})["year"]
        for record in (await client.scroll(NAME, limit=9))[0]
    }
    assert years == {1: 1, 2: 1991, 3: 1992, 4: 1993, 5: 1994, 9: 1}


async def test_uuids_are_ids_too(client: AsyncQdrantClient) -> None:
    name = str(uuid.uuid5(uuid.NAMESPACE_URL, "https://a.example/"))
    await client.upsert(
        NAME,
        [models.PointStruct(id=name, vector={"bm25": sparse(55)}, payload={"u": 1})],
        wait=True,
    )
    found = (await client.query_points(NAME, query=sparse(55), using="bm25")).points
    assert [hit.id for hit in found] == [name]
    records = await client.retrieve(NAME, [name, 77], with_vectors=True)
    assert [(record.id, record.payload, record.vector) for record in records] == [
        (name, {"u": 1}, {"bm25": sparse(55)})
    ]


@pytest.mark.parametrize(
    "vector",
    [
        {"dense": [1.0, 2.0]},
        {"other": [1.0, 2.0, 3.0]},
        {"dense": sparse(1)},
        {"bm25": models.SparseVector(indices=[3, 3], values=[1.0, 2.0])},
        {"bm25": models.SparseVector(indices=[1, 2], values=[1.0])},
    ],
    ids=["size", "name", "kind", "repeated index", "lengths"],
)
async def test_one_bad_point_refuses_the_batch_and_is_not_written(
    client: AsyncQdrantClient, vector: Any
) -> None:
    good = models.PointStruct(id=10, vector={"dense": [1.0, 0.0, 0.0]}, payload={})
    with pytest.raises(REFUSED):
        await client.upsert(
            NAME, [good, models.PointStruct(id=11, vector=vector, payload={})], wait=True
        )
    assert await ids_of(client) - {10} == {1, 2, 3, 4, 5}  # a server may have written the good one


async def test_payload_fields_are_selected(client: AsyncQdrantClient) -> None:
    async def selected(selector: Any) -> Any:
        return (await client.retrieve(NAME, [5], with_payload=selector))[0].payload

    assert await selected(False) in (None, {})
    assert await selected(["title"]) == {"title": "cat"}
    assert await selected(models.PayloadSelectorExclude(exclude=["offers", "year"])) == {
        "title": "cat"
    }
    assert await selected(["offers[].shop"]) == {"offers": [{"shop": "x"}, {"shop": "y"}]}


async def test_a_collection_describes_itself(client: AsyncQdrantClient) -> None:
    info = await client.get_collection(NAME)
    assert info.points_count == len(DENSE)
    assert info.config.metadata == {"generation": "g1"}
    vectors = info.config.params.vectors
    assert isinstance(vectors, dict)
    assert (vectors["dense"].size, vectors["dense"].distance) == (3, models.Distance.COSINE)
    assert (info.config.params.sparse_vectors or {})["bm25"].modifier is models.Modifier.IDF
    await client.update_collection(NAME, metadata={"more": 1})
    assert (await client.get_collection(NAME)).config.metadata == {"generation": "g1", "more": 1}


async def test_collections_are_listed_and_deleted(client: AsyncQdrantClient) -> None:
    assert NAME in [collection.name for collection in (await client.get_collections()).collections]
    assert await client.collection_exists(NAME)
    with pytest.raises(REFUSED, match="already exists"):
        await client.create_collection(NAME, vectors_config=VECTORS)
    assert await client.delete_collection(NAME)
    assert not await client.delete_collection(NAME)
    assert not await client.collection_exists(NAME)
    with pytest.raises(REFUSED, match=r"(?i)not found"):
        await client.count(NAME)


async def test_an_alias_stands_for_its_collection_until_it_is_deleted(
    client: AsyncQdrantClient,
) -> None:
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=NAME, alias_name="shelf")
    )
    rename = models.RenameAliasOperation(
        rename_alias=models.RenameAlias(old_alias_name="shelf", new_alias_name=ALIAS)
    )
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS))
    await client.update_collection_aliases([create])
    await client.upsert("shelf", [point(1)], wait=True)
    assert (await client.count("shelf")).count == len(DENSE)
    await client.update_collection_aliases([rename])
    assert [alias.alias_name for alias in (await client.get_collection_aliases(NAME)).aliases] == [
        ALIAS
    ]
    assert [
        (alias.alias_name, alias.collection_name) for alias in (await client.get_aliases()).aliases
    ] == [(ALIAS, NAME)]
    assert await client.collection_exists(ALIAS)
    await client.update_collection_aliases([delete])
    assert not await client.collection_exists(ALIAS)


async def test_an_alias_goes_with_its_collection(client: AsyncQdrantClient) -> None:
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=NAME, alias_name="shelf")
    )
    await client.update_collection_aliases([create])
    await client.delete_collection(NAME)
    assert (await client.get_aliases()).aliases == []


async def test_an_alias_needs_a_collection_and_a_free_name(client: AsyncQdrantClient) -> None:
    for target, alias in (("nowhere", "shelf"), (NAME, NAME)):
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=target, alias_name=alias)
        )
        with pytest.raises(REFUSED):
            await client.update_collection_aliases([create])
    assert (await client.get_aliases()).aliases == []
