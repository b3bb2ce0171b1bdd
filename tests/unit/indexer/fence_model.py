"""A random model of the version fence: the real `Fence` and `Scrubber` over a registry and a store
in memory.

One document is sent several times. Copies of its versions run step by step in random order; they
are killed and delivered again, paused while another consumer takes over, released twice, upserts
that timed out are applied later, and a scrubber goes over the points all the time. When all is
quiet, only the last accepted action may be visible.
"""

import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

import msgspec
from qdrant_client.models import PointStruct

from indexer.fence import Candidate, Fence
from indexer.qdrant.store import StoredDocument, StoredPage, StoredPoint, StoredVersion
from indexer.scrubber import Scrubber
from shared.jobs.registry import Decided, Registration
from shared.service.errors import DependencyError, RejectedError

DELETE = "-"
CHUNKS = {"A": 4, "B": 2, "C": 3}
DOCUMENT = "document"
TARGET = "target"

Point = tuple[int, str, int]  # version, content, chunk
MakeFence = Callable[[Any, Any], Any]


class Step:
    """One `await` is one step: the scheduler may run anybody else before the next."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Faults(msgspec.Struct, frozen=True):
    """How often what goes wrong, per step or start."""

    kill: float = 0.0
    pause: float = 0.0
    copy: float = 0.0
    late_upsert: float = 0.0
    is_scrubbed: bool = False


ALL_FAULTS = Faults(kill=0.03, pause=0.03, copy=0.2, late_upsert=0.05, is_scrubbed=True)


class World:
    """Postgres and Qdrant, as far as one document is concerned."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng = rng
        self.faults = faults
        self.points: set[Point] = set()
        self.late: list[set[Point]] = []
        self.decision: Decided | None = None
        self.content = ""  # of the live version
        self.ended: set[int] = set()

    async def mark_unchanged(self, version: int, content: str) -> bool:
        await Step()
        is_same = (
            self.decision is not None
            and self.decision.live_version is not None
            and self.content == content
        )
        if not is_same or self.decision is None or self.decision.fence >= version:
            return False
        self.decision = Decided(version, self.decision.live_version)
        return True

    async def decided(self, _target: str, _ids: Sequence[str]) -> dict[str, Decided]:
        await Step()
        return {} if self.decision is None else {DOCUMENT: self.decision}

    async def commit(self, _target: str, registrations: Sequence[Registration]) -> set[str]:
        await Step()
        won = set()
        for registration in registrations:
            version = registration.version
            live = version if registration.is_live else None
            if (
                self.decision is None
                or self.decision.fence < version
                or self.decision == Decided(version, live)
            ):
                self.decision = Decided(version, live)
                self.content = registration.url
                won.add(DOCUMENT)
        return won

    async def upsert(self, _target: str, points: Sequence[PointStruct]) -> dict[str, RejectedError]:
        keys = [
            (p.payload["version"], p.payload["text"], p.payload["chunk_index"])
            for p in points
            if p.payload
        ]
        for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            await Step()
            if self.rng.random() < self.faults.late_upsert:
                self.late.append(set(part))
                raise DependencyError("qdrant", "timed out")
            self.points |= set(part)
        return {}

    async def delete_older(self, _target: str, documents: Sequence[StoredDocument]) -> None:
        await Step()
        for d in documents:
            self.points = {
                p
                for p in self.points
                if p[0] > d.version or (p[0] == d.version and p[2] < d.chunks)
            }

    async def delete_version(self, _target: str, versions: Sequence[StoredVersion]) -> None:
        await Step()
        self.points = {p for p in self.points if p[0] not in {v.version for v in versions}}

    async def delete_up_to(self, _target: str, versions: Sequence[StoredVersion]) -> None:
        await Step()
        self.points = {
            p for p in self.points if p[0] > max((v.version for v in versions), default=0)
        }

    async def page(self, _target: str, after: Point | None, _limit: int) -> StoredPage:
        """One point, so that much may happen in a pass."""
        await Step()
        points = sorted(point for point in self.points if after is None or point >= after)
        return StoredPage(
            [StoredPoint(p, DOCUMENT, p[0]) for p in points[:1]],
            points[1] if len(points) > 1 else None,
        )

    async def delete_points(self, _target: str, ids: Sequence[Any]) -> None:
        await Step()
        self.points -= set(ids)

    @property
    def visible(self) -> set[tuple[str, int]]:
        live = None if self.decision is None else self.decision.live_version
        return {(content, chunk) for version, content, chunk in self.points if version == live}


class Scrubbing:
    """A scrubber's passes, one after another, resumed a step at a time."""

    def __init__(self, world: World) -> None:
        self._scrubber = Scrubber(world, world)
        self._pass: Coroutine[Any, Any, None] = self._scrub()

    def step(self) -> bool:
        """Run to the next `await`; False if that was the end of a pass."""
        try:
            self._pass.send(None)
        except StopIteration:
            self._pass = self._scrub()
            return False
        return True

    async def _scrub(self) -> None:
        after = None
        while (after := (await self._scrubber.scrub_page(TARGET, after)).after) is not None:
            pass

    def close(self) -> None:
        self._pass.close()


class Copy:
    """One run of one version through the pipeline, resumed a step at a time."""

    def __init__(
        self, world: World, fence: Any, version: int, content: str, *, is_redelivered: bool = False
    ) -> None:
        self.world, self.fence, self.version, self.content = world, fence, version, content
        self._run: Coroutine[Any, Any, None] = self._process(is_redelivered=is_redelivered)

    def step(self) -> bool:
        """Run to the next `await`; False if that was the end."""
        try:
            self._run.send(None)
        except StopIteration:
            return False
        return True

    def redelivered(self) -> "Copy":
        return Copy(self.world, self.fence, self.version, self.content, is_redelivered=True)

    def close(self) -> None:
        self._run.close()

    async def _process(self, *, is_redelivered: bool) -> None:
        await Step()
        if is_redelivered and self.version in self.world.ended:
            return
        is_index = self.content != DELETE
        if (
            is_index
            and not is_redelivered
            and await self.world.mark_unchanged(self.version, self.content)
        ):
            self.world.ended.add(self.version)
            return
        while True:
            try:
                await self.fence.apply(TARGET, [self._candidate()])
                break
            except DependencyError:
                continue
        self.world.ended.add(self.version)

    def _candidate(self) -> Candidate:
        is_live = self.content != DELETE
        registration = Registration(
            document_id=DOCUMENT,
            version=self.version,
            is_live=is_live,
            url=self.content if is_live else "",
        )
        points = [
            PointStruct(
                id=chunk,
                vector={},
                payload={"version": self.version, "text": self.content, "chunk_index": chunk},
            )
            for chunk in range(CHUNKS[self.content] if is_live else 0)
        ]
        return Candidate(registration=registration, points=points)


def run(seed: int, sequence: str, faults: Faults, make_fence: MakeFence = Fence) -> World:
    """One random run of `sequence`, for example "AB-A", to its quiet end, and a last pass of the
    scrubber.
    """
    rng = random.Random(seed)
    world = World(rng, faults)
    fence = make_fence(world, world)
    scrubbing = Scrubbing(world)
    starts = sorted(
        (i * rng.choice([0, 3, 8, 30]), version, c)
        for i, (version, c) in enumerate(enumerate(sequence, 1))
    )
    waiting = [(at, Copy(world, fence, version, content)) for at, version, content in starts]
    live: list[Copy] = []
    paused: list[Copy] = []
    for now in range(100_000):
        while waiting and waiting[0][0] <= now:
            copy = waiting.pop(0)[1]
            live.append(copy)
            if rng.random() < faults.copy:
                live.append(Copy(world, fence, copy.version, copy.content))
        if world.late and rng.random() < 0.05:
            world.points |= world.late.pop()
        if not (live or paused or waiting or world.late):
            _scrub_once_more(scrubbing, faults)
            return world
        if live or paused:
            _advance(rng.choice(live + paused), live, paused, world)
        if faults.is_scrubbed and rng.random() < 0.5:
            scrubbing.step()
    raise AssertionError(f"seed {seed}: the run does not end")


def _scrub_once_more(scrubbing: Scrubbing, faults: Faults) -> None:
    """Finish the pass in progress, then run a whole one."""
    for _ in range(2 if faults.is_scrubbed else 0):
        while scrubbing.step():
            pass
    scrubbing.close()


def _advance(copy: Copy, live: list[Copy], paused: list[Copy], world: World) -> None:
    chance, faults = world.rng.random(), world.faults
    if copy in live and chance < faults.kill:
        live[live.index(copy)] = copy.redelivered()
        copy.close()
    elif copy in live and chance < faults.kill + faults.pause:
        live[live.index(copy)] = copy.redelivered()
        paused.append(copy)
    elif copy in paused and chance < 0.05:
        paused.remove(copy)
        copy.close()
    elif copy in paused and chance < 0.6:
        return
    elif not copy.step():
        (live if copy in live else paused).remove(copy)
