import asyncio

import pytest

from indexer.search.embedding.query_cache import QueryCache
from shared.service.errors import DependencyError
from tests.support.documents import vector_of
from tests.support.search_fakes import FakeTei


async def test_a_query_that_is_asked_again_is_embedded_once() -> None:
    tei = FakeTei()
    cache = QueryCache(tei.embed_query)
    assert [await cache("fox", "m"), await cache("river", "m"), await cache("fox", "m")] == [
        vector_of("fox"), vector_of("river"), vector_of("fox"),
    ]  # fmt: skip
    assert tei.asked == ["fox", "river"]


async def test_the_query_least_recently_asked_is_forgotten_first() -> None:
    tei = FakeTei()
    cache = QueryCache(tei.embed_query, size=2)
    for query in ("fox", "river", "fox", "boat", "fox", "river"):
        await cache(query, "m")
    assert tei.asked == ["fox", "river", "boat", "river"]


async def test_equal_queries_at_once_all_get_their_answer_whatever_is_forgotten() -> None:
    cache = QueryCache(FakeTei().embed_query, size=1)
    queries = ["fox", "river"] * 5
    assert await asyncio.gather(*(cache(query, "m") for query in queries)) == [
        vector_of(query) for query in queries
    ]


async def test_an_error_is_not_remembered() -> None:
    tei = FakeTei(DependencyError("tei", "away"))
    cache = QueryCache(tei.embed_query)
    with pytest.raises(DependencyError):
        await cache("fox", "m")
    tei.error = None
    assert await cache("fox", "m") == vector_of("fox")
