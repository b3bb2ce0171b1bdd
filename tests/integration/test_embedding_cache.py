"""The embedding cache in Postgres: exact, off the path, and never a reason to fail."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedder.cache import EmbeddingCache, ModelIdentity
from ingest.upkeep.housekeeping import Housekeeper
from shared.service.metrics import Metrics
from tests.support.stage_harness import Servers
from tests.support.tei_stand_in import vector_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIMENSION = 8
IDENTITY = ModelIdentity(model="model", revision="1", dimension=DIMENSION)
TEXTS = [f"text {number}" for number in range(1200)]


@asynccontextmanager
async def cache_of(
    servers: Servers, identity: ModelIdentity = IDENTITY
) -> AsyncIterator[EmbeddingCache]:
    """A cache that has written everything when the block is left."""
    async with EmbeddingCache(servers.pool, identity, Metrics()) as cache:
        yield cache


async def keep(servers: Servers, *texts: str) -> None:
    async with cache_of(servers) as cache:
        for text in texts:
            cache.put(text, vector_of(text, DIMENSION))


async def known(servers: Servers, *texts: str, identity: ModelIdentity = IDENTITY) -> set[str]:
    """Which texts are found; each must have its own vector."""
    async with cache_of(servers, identity) as cache:
        found = await cache.get(texts)
    for text, vector in found.items():
        np.testing.assert_array_equal(vector, vector_of(text, DIMENSION))
    return set(found)


async def rows(servers: Servers) -> int:
    return int(await servers.pool.fetchval("SELECT count(*) FROM webhook.embedding_cache"))


async def test_what_was_kept_is_found_by_the_exact_text(servers: Servers) -> None:
    await keep(servers, *TEXTS)
    assert await known(servers, *TEXTS, "text 7 ", "Text 7", "") == set(TEXTS)


@pytest.mark.parametrize(
    "identity",
    [
        ModelIdentity(model="other", revision="1", dimension=DIMENSION),
        ModelIdentity(model="model", revision="2", dimension=DIMENSION),
        ModelIdentity(model="model", revision=None, dimension=DIMENSION),
        ModelIdentity(model="model", revision="1", dimension=DIMENSION, prompt="query"),
        ModelIdentity(model="model", revision="1", dimension=DIMENSION + 1),
    ],
)
async def test_a_vector_is_not_taken_for_that_of_another_model_revision_prompt_or_dimension(
    servers: Servers, identity: ModelIdentity
) -> None:
    await keep(servers, "text")
    assert await known(servers, "text", identity=identity) == set()


async def test_many_writers_of_the_same_texts_do_not_disturb_each_other(servers: Servers) -> None:
    await asyncio.gather(*(keep(servers, *(TEXTS if n % 2 else reversed(TEXTS))) for n in range(6)))
    assert await rows(servers) == len(TEXTS)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 4 * DIMENSION,
        b"\0" * 4,
        np.full(DIMENSION, np.nan, "<f4").tobytes(),
        b"\x7f" * 33,
    ],
)
async def test_a_damaged_row_is_a_miss_and_is_made_good(servers: Servers, damage: bytes) -> None:
    await keep(servers, "text", "other")
    async with cache_of(servers) as cache:
        await servers.pool.execute(
            "UPDATE webhook.embedding_cache SET vector = $1 WHERE key = $2",
            damage,
            cache.key("text"),
        )
        assert set(await cache.get(["text", "other"])) == {"other"}
        cache.put("text", vector_of("text", DIMENSION))
    assert await known(servers, "text") == {"text"}


async def test_use_is_noted_once_a_week(servers: Servers) -> None:
    await keep(servers, "fresh", "stale")
    async with cache_of(servers) as cache:
        for text, days in (("fresh", 6), ("stale", 8)):
            await servers.pool.execute(
                "UPDATE webhook.embedding_cache SET last_used = current_date - $1::int WHERE key = $2",
                days, cache.key(text),
            )  # fmt: skip
        await cache.get(["fresh", "stale"])
        fresh, stale = cache.key("fresh"), cache.key("stale")
    used = await servers.pool.fetch(
        "SELECT key, current_date - last_used AS age FROM webhook.embedding_cache"
    )
    assert {row["key"]: row["age"] for row in used} == {fresh: 6, stale: 0}


async def test_what_nobody_asked_for_in_a_long_time_is_pruned(servers: Servers) -> None:
    await keep(servers, *TEXTS)
    old = "UPDATE webhook.embedding_cache SET last_used = current_date - 100 WHERE get_byte(key, 0) < 128"
    await servers.pool.execute(old)
    left = await servers.pool.fetchval(
        "SELECT count(*) FROM webhook.embedding_cache WHERE last_used = current_date"
    )
    keeper = Housekeeper(servers.pool, retention=86400, cache_retention=90 * 86400)
    await keeper.clean_up(dt.datetime.now(dt.UTC).date())
    assert 0 < left == await rows(servers)


async def test_a_read_that_takes_too_long_is_a_miss_and_the_next_one_is_not(
    servers: Servers,
) -> None:
    await keep(servers, "text")
    async with cache_of(servers) as cache, servers.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE webhook.embedding_cache IN ACCESS EXCLUSIVE MODE")
            assert await cache.get(["text"]) == {}
        assert set(await cache.get(["text"])) == {"text"}


async def test_a_statement_that_fails_is_a_miss_and_fails_no_caller(servers: Servers) -> None:
    await keep(servers, "text")
    await servers.pool.execute("ALTER TABLE webhook.embedding_cache RENAME TO hidden_cache")
    try:
        assert await known(servers, "text", "\ud800 a lone surrogate") == set()
        await keep(servers, "another")
    finally:
        await servers.pool.execute("ALTER TABLE webhook.hidden_cache RENAME TO embedding_cache")
    assert await rows(servers) == 1
    assert await known(servers, "text", "another") == {"text"}


async def test_the_queue_of_new_rows_is_bounded(servers: Servers) -> None:
    async with EmbeddingCache(servers.pool, IDENTITY, Metrics(), max_queued=10) as cache:
        for text in TEXTS[:100]:
            cache.put(text, vector_of(text, DIMENSION))
    assert await rows(servers) == 10
