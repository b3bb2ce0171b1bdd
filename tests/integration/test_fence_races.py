"""Races by the hundred past the real fence, on Postgres and the Qdrant-compatible server.

Each race is about one document that is sent three times (A-B-A, deletes) in a short time. Every
version runs in copies; every step waits at random, copies are cancelled in the middle of a step and
begin anew,
requests are done after their sender gave up, and a scrubber goes over the collection all the while.
The newest version
wins, and nothing else is left.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import PointStruct

from indexer.fence import Candidate, Fence
from indexer.qdrant.store import PointStore, StoredDocument, StoredVersion
from indexer.scrubber import Scrubber
from shared.jobs.registry import Decided, Registration, Registry, Seen
from shared.pipeline import ids
from shared.service.errors import DependencyError, RejectedError
from tests.support.documents import COLLECTION, points
from tests.support.stage_harness import TARGET, Servers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

RACES = 200
SEQUENCES = ["ABA", "ABC", "A-A", "AB-", "AAB", "BAA"]
CHUNKS = {"A": 4, "B": 2, "C": 3}
DELETE = "-"

_AT_ONCE = 50  # races; more would only wait for the ten connections to Postgres
_TIMEOUT = (
    100.0  # seconds; before pytest's, which would leave the races running under the next tests
)
_DELAY = 0.02  # seconds, at most, before and after a step
_CANCELLED = 0.2  # of the runs of a copy
_LATE = 0.05  # of the upserts
_COPIES = 0.5  # of the versions have two

T = TypeVar("T")


class Race:
    """What happens to one document. The real registry and store, each step between two random
    delays.
    """

    def __init__(self, number: int, seed: int, registry: Registry, store: PointStore) -> None:
        self.url = f"https://races.example/{number}"
        self.document_id = ids.document_id(COLLECTION, self.url)
        self.random = random.Random(f"{seed} {number}")
        self.sequence = self.random.choice(SEQUENCES)
        self.late: list[asyncio.Task[object]] = []
        self._first = number * len(CHUNKS) + 1
        self._registry, self._store = registry, store
        self._fence = Fence(self, self)

    @property
    def last(self) -> tuple[int, str]:
        """Version and text of the last one that was accepted."""
        return self._first + len(self.sequence) - 1, self.sequence[-1]

    async def run(self) -> None:
        """All versions and their copies, to the end, and everything that comes late."""
        async with asyncio.TaskGroup() as group:
            for at, content in enumerate(self.sequence):
                for _ in range(1 + (self.random.random() < _COPIES)):
                    group.create_task(self._insist(self._first + at, content))
        await asyncio.gather(*self.late)

    async def _insist(self, version: int, content: str) -> None:
        """As a stage does: what was cancelled or met an outage is delivered again."""
        is_done = False
        while not is_done:
            patience = (
                self.random.uniform(0, 10 * _DELAY) if self.random.random() < _CANCELLED else None
            )
            with contextlib.suppress(DependencyError, TimeoutError):
                async with asyncio.timeout(patience):
                    await self._process(version, content)
                is_done = True

    async def _process(self, version: int, content: str) -> None:
        if content == DELETE:
            registration = Registration(
                document_id=self.document_id, version=version, is_live=False, url=self.url
            )
            await self._fence.apply(TARGET, [Candidate(registration=registration)])
            return
        seen = Seen(
            document_id=self.document_id,
            version=version,
            content_hash=content.encode(),
            fingerprint=b"fingerprint",
        )
        if await self._step(lambda: self._registry.mark_unchanged(TARGET, seen)) is not None:
            return
        texts = [f"{content} {chunk}" for chunk in range(CHUNKS[content])]
        registration = Registration(
            document_id=self.document_id, version=version, is_live=True, url=self.url, content_hash=content.encode(),
            fingerprint=b"fingerprint", chunks=len(texts),
        )  # fmt: skip
        candidate = Candidate(
            registration=registration, points=points(self.url, texts, version=version)
        )
        await self._fence.apply(TARGET, [candidate])

    async def _step(self, work: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(self.random.uniform(0, _DELAY))
        result = await work()
        await asyncio.sleep(self.random.uniform(0, _DELAY))
        return result

    # What the fence sees of registry and store.

    async def decided(self, target: str, document_ids: Sequence[str]) -> dict[str, Decided]:
        return await self._step(lambda: self._registry.decided(target, document_ids))

    async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]:
        return await self._step(lambda: self._registry.commit(target, registrations))

    async def upsert(self, collection: str, new: Sequence[PointStruct]) -> dict[str, RejectedError]:
        if self.random.random() < _LATE:
            self.late.append(asyncio.create_task(self._upsert_late(collection, new)))
            raise DependencyError("qdrant", "timed out")
        return await self._step(lambda: self._store.upsert(collection, new))

    async def _upsert_late(self, collection: str, new: Sequence[PointStruct]) -> None:
        await asyncio.sleep(self.random.uniform(0, 20 * _DELAY))
        await self._store.upsert(collection, new)

    async def delete_older(self, collection: str, documents: Sequence[StoredDocument]) -> None:
        await self._step(lambda: self._store.delete_older(collection, documents))

    async def delete_version(self, collection: str, versions: Sequence[StoredVersion]) -> None:
        await self._step(lambda: self._store.delete_version(collection, versions))

    async def delete_up_to(self, collection: str, versions: Sequence[StoredVersion]) -> None:
        await self._step(lambda: self._store.delete_up_to(collection, versions))


class Stored(msgspec.Struct, frozen=True, order=True):
    document_id: str
    version: int
    text: str


async def stored(qdrant: AsyncQdrantClient) -> list[Stored]:
    found, _ = await qdrant.scroll(
        TARGET, limit=100_000, with_payload=["document_id", "version", "text"]
    )
    return sorted(Stored(**record.payload) for record in found if record.payload)


async def run_races(races: Sequence[Race], scrubber: Scrubber) -> None:
    """Some dozens at once, with a scrubber beside them."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def run(race: Race) -> None:
        async with turns:
            await race.run()

    async def scrub() -> None:
        while True:
            await scrubber.scrub(TARGET)
            await asyncio.sleep(_DELAY)

    async with asyncio.timeout(_TIMEOUT), asyncio.TaskGroup() as group:
        scrubbing = group.create_task(scrub())
        await asyncio.gather(*(run(race) for race in races))
        scrubbing.cancel()


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_hundreds_of_races_the_newest_versions_are_stored_and_nothing_else(
    servers: Servers, qdrant: AsyncQdrantClient, seed: int
) -> None:
    registry, store = Registry(servers.pool), PointStore(qdrant)
    races = [Race(number, seed, registry, store) for number in range(RACES)]
    scrubber = Scrubber(registry, store)
    await run_races(races, scrubber)
    left = len(await stored(qdrant))
    scrubbed = await scrubber.scrub(TARGET)
    live = await registry.live_versions(TARGET, [race.document_id for race in races])
    found = await stored(qdrant)
    assert left - scrubbed.removed == len(found)
    assert found == sorted(
        Stored(race.document_id, version, f"{content} {chunk}")
        for race in races
        for _, content in [race.last]
        if (version := live[race.document_id]) is not None
        for chunk in range(CHUNKS[content])
    )
    assert [
        race.url for race in races if (live[race.document_id] is None) != (race.last[1] == DELETE)
    ] == []
