"""The last accepted action wins, whatever happens in between: the fence under random interleavings."""

import os
from collections.abc import Sequence

import pytest

from indexer.fence import Candidate, Fence
from indexer.store import StoredDocument
from shared.jobs.registry import Decided, Registration
from tests.unit.indexer.fence_model import ALL_FAULTS, CHUNKS, DELETE, Faults, MakeFence, World, run

RUNS = int(os.environ.get("MILLSTREAM_FENCE_RUNS", "400"))  # `make torture` asks for more

SEQUENCES = ["ABA", "ABC", "AB", "A-A", "AB-", "A-B", "AA"]
FAULTS = {
    "no faults": Faults(),
    "released twice": Faults(copy=0.3),
    "killed and paused": Faults(kill=0.03, pause=0.03),
    "upserts applied late": Faults(late_upsert=0.05),
    "all at once": ALL_FAULTS,
}


def expected(sequence: str) -> set[tuple[str, int]]:
    last = sequence[-1]
    return set() if last == DELETE else {(last, chunk) for chunk in range(CHUNKS[last])}


def wrong_seeds(sequence: str, faults: Faults, make_fence: MakeFence = Fence) -> list[int]:
    return [seed for seed in range(RUNS) if run(seed, sequence, faults, make_fence).visible != expected(sequence)]


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_only_the_last_accepted_action_is_visible(sequence: str, faults: Faults) -> None:
    assert wrong_seeds(sequence, faults) == []


@pytest.mark.parametrize("faults", [Faults(kill=0.03), Faults(copy=0.3)], ids=["killed", "released twice"])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_no_hidden_point_stays_behind_where_nothing_is_both_copied_and_killed(sequence: str, faults: Faults) -> None:
    # What a killed copy of an ended item leaves, and an upsert that is applied late, is the scrubber's.
    worlds = [run(seed, sequence, faults) for seed in range(RUNS)]
    assert [seed for seed, world in enumerate(worlds) if _hidden(world)] == []


class FenceWithoutWithdrawal(Fence):
    async def _remove(self, target: str, candidates: list[Candidate], decided: dict[str, Decided]) -> None:
        pass


def fence_without_clean_up(registry: World, store: World) -> Fence:
    class Keeping(World):
        async def delete_older(self, _target: str, documents: Sequence[StoredDocument]) -> None:
            pass

    keeping = Keeping.__new__(Keeping)
    keeping.__dict__ = store.__dict__
    return Fence(registry, keeping)


def fence_whose_registry_lets_all_win(registry: World, store: World) -> Fence:
    class Lenient(World):
        async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]:
            self.decision = None
            return await super().commit(target, registrations)

    lenient = Lenient.__new__(Lenient)
    lenient.__dict__ = registry.__dict__
    return Fence(lenient, store)


@pytest.mark.parametrize(
    "make_fence",
    [FenceWithoutWithdrawal, fence_without_clean_up],
    ids=lambda make: make.__name__,
)
def test_the_model_sees_the_points_that_a_lesser_fence_leaves_behind(make_fence: MakeFence) -> None:
    assert any(_hidden(run(seed, "ABC", Faults(copy=0.3), make_fence)) for seed in range(RUNS))


def test_the_model_sees_old_content_when_the_registry_lets_every_version_win() -> None:
    worlds = (run(seed, "ABC", ALL_FAULTS, fence_whose_registry_lets_all_win) for seed in range(RUNS))
    assert any(world.visible != expected("ABC") for world in worlds)


def _hidden(world: World) -> set[tuple[int, str, int]]:
    live = None if world.decision is None else world.decision.live_version
    return {point for point in world.points if point[0] != live}
