"""The store guard brings Qdrant to what Postgres says about targets."""

from typing import cast

import pytest
from qdrant_client import AsyncQdrantClient, models

from indexer.recovery import Recovery
from indexer.store_guard import StoreGuard
from shared.jobs.targets import Target, Targets


def target(name: str, *, live: bool = False) -> Target:
    return Target(target=name, collection="docs", generation="g", live=live)


class Registry:
    """What the guard asks of Postgres, and what it did there."""

    def __init__(
        self, *, in_use: list[Target], retired: list[Target], dropped: list[Target]
    ) -> None:
        self._targets = {"in_use": in_use, "retired": retired, "dropped": dropped}
        self.forgotten: list[str] = []
        self.closed: list[str] = []
        self.requeued: list[str] = []
        self.back: list[str] = []

    async def in_use(self) -> list[Target]:
        return self._targets["in_use"]

    async def retired(self) -> list[Target]:
        return self._targets["retired"]

    async def dropped(self) -> list[Target]:
        return self._targets["dropped"]

    async def forget_documents(self, name: str) -> int:
        self.forgotten.append(name)
        return 1

    async def close_dead_letters(self, name: str) -> int:
        self.closed.append(name)
        return 0

    async def collections_back(self, targets: list[str]) -> None:
        self.back = targets

    async def begin(self, name: str) -> bool:
        self.requeued.append(name)
        return True


async def looked(client: AsyncQdrantClient, registry: Registry) -> Registry:
    await StoreGuard(client, cast("Targets", registry), cast("Recovery", registry)).look()
    return registry


@pytest.fixture
async def client() -> AsyncQdrantClient:
    """A store with the collections docs_1 and docs_2."""
    client = AsyncQdrantClient(":memory:")
    for name in ("docs_1", "docs_2"):
        await client.create_collection(
            name, models.VectorParams(size=2, distance=models.Distance.COSINE)
        )
    return client


async def aliases(client: AsyncQdrantClient) -> dict[str, str]:
    return {
        alias.alias_name: alias.collection_name for alias in (await client.get_aliases()).aliases
    }


async def test_the_alias_is_that_of_the_live_target_and_never_of_one_that_is_being_filled(
    client: AsyncQdrantClient,
) -> None:
    filling = Registry(
        in_use=[target("docs_1", live=True), target("docs_2")], retired=[], dropped=[]
    )
    await looked(client, filling)
    assert await aliases(client) == {"docs": "docs_1"}
    switched = Registry(
        in_use=[target("docs_2", live=True)], retired=[target("docs_1")], dropped=[]
    )
    await looked(client, switched)
    assert await aliases(client) == {"docs": "docs_2"}
    assert (filling.requeued, switched.forgotten) == ([], [])


async def test_what_is_lost_is_queued_again_if_it_is_in_use_and_forgotten_if_it_is_kept(
    client: AsyncQdrantClient,
) -> None:
    registry = await looked(
        client,
        Registry(in_use=[target("docs_3", live=True)], retired=[target("docs_4")], dropped=[]),
    )
    assert (registry.requeued, registry.forgotten) == (["docs_3"], ["docs_4"])


async def test_what_nobody_needs_goes(client: AsyncQdrantClient) -> None:
    registry = Registry(
        in_use=[target("docs_2", live=True)], retired=[], dropped=[target("docs_1")]
    )
    await looked(client, registry)
    await looked(client, registry)
    assert [found.name for found in (await client.get_collections()).collections] == ["docs_2"]
    assert set(registry.forgotten) == {"docs_1"}
