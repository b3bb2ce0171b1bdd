"""The last accepted action wins, whatever happens in between: fence and scrubber under random
interleavings.
"""

import os
import random
from collections.abc import Sequence

import pytest

from indexer.fence import Candidate, Fence
from indexer.qdrant.store import StoredDocument
from shared.jobs.registry import Decided, Registration
from tests.unit.indexer.fence_model import (
    ALL_FAULTS,
    CHUNKS,
    DELETE,
    Copy,
    Faults,
    MakeFence,
    World,
    run,
)

RUNS = int(os.environ.get("MILLSTREAM_FENCE_RUNS", "400"))  # `make torture` asks for more

SEQUENCES = ["ABA", "ABC", "AB", "A-A", "AB-", "A-B", "AA"]
FAULTS = {
    "no faults": Faults(),
    "released twice": Faults(copy=0.3),
    "killed and paused": Faults(kill=0.03, pause=0.03),
    "upserts applied late": Faults(late_upsert=0.05),
    "scrubbed meanwhile": Faults(copy=0.3, is_scrubbed=True),
    "all at once": ALL_FAULTS,
}


def expected(sequence: str) -> set[tuple[str, int]]:
    last = sequence[-1]
    return set() if last == DELETE else {(last, chunk) for chunk in range(CHUNKS[last])}


def wrong_seeds(sequence: str, faults: Faults, make_fence: MakeFence = Fence) -> list[int]:
    return [
        seed
        for seed in range(RUNS)
        if run(seed, sequence, faults, make_fence).visible != expected(sequence)
    ]


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_only_the_last_accepted_action_is_visible(sequence: str, faults: Faults) -> None:
    assert wrong_seeds(sequence, faults) == []


@pytest.mark.parametrize(
    "faults", [Faults(kill=0.03), Faults(copy=0.3)], ids=["killed", "released twice"]
)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_no_hidden_point_stays_behind_where_nothing_is_both_copied_and_killed(
    sequence: str, faults: Faults
) -> None:
    # What a killed copy of an ended item leaves, and an upsert that is applied late, is the
    # scrubber's.
    worlds = [run(seed, sequence, faults) for seed in range(RUNS)]
    assert [seed for seed, world in enumerate(worlds) if _hidden(world)] == []


def test_a_winner_takes_away_what_a_copy_of_it_wrote_behind_a_later_version_before_it_died() -> (
    None
):
    world = World(random.Random(1), Faults())
    winner, copy = (Copy(world, Fence(world, world), 1, "A", is_redelivered=True) for _ in range(2))
    for _ in range(3):
        copy.step()  # the fence lets it pass, and it has written nothing yet
    while world.decision is None:
        winner.step()
    later = Copy(world, Fence(world, world), 2, "B")
    while later.step():
        pass
    while not _hidden(world):
        copy.step()
    copy.close()
    while winner.step():
        pass
    assert _hidden(world) == set()
    assert world.visible == expected("B")


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_after_a_pass_of_the_scrubber_no_hidden_point_is_left_whatever_went_wrong(
    sequence: str,
) -> None:
    worlds = [run(seed, sequence, ALL_FAULTS) for seed in range(RUNS)]
    assert [seed for seed, world in enumerate(worlds) if _hidden(world)] == []


class FenceWithoutWithdrawal(Fence):
    async def _remove(
        self, target: str, candidates: list[Candidate], decided: dict[str, Decided]
    ) -> None:
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


def fence_whose_registry_takes_an_equal_fence_for_a_repeat(registry: World, store: World) -> Fence:
    class Trusting(World):
        async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]:
            if self.decision is not None and self.decision.fence in {
                r.version for r in registrations
            }:
                self.decision = None
            return await super().commit(target, registrations)

    trusting = Trusting.__new__(Trusting)
    trusting.__dict__ = registry.__dict__
    return Fence(trusting, store)


@pytest.mark.parametrize(
    "make_fence",
    [FenceWithoutWithdrawal, fence_without_clean_up],
    ids=lambda make: make.__name__,
)
def test_the_model_sees_the_points_that_a_lesser_fence_leaves_behind(make_fence: MakeFence) -> None:
    assert any(_hidden(run(seed, "ABC", Faults(copy=0.3), make_fence)) for seed in range(RUNS))


def test_the_model_sees_old_content_when_the_registry_lets_every_version_win() -> None:
    worlds = (
        run(seed, "ABC", ALL_FAULTS, fence_whose_registry_lets_all_win) for seed in range(RUNS)
    )
    assert any(world.visible != expected("ABC") for world in worlds)


def test_the_model_sees_chunks_scrubbed_from_a_copy_after_its_item_was_unchanged() -> None:
    make_fence = fence_whose_registry_takes_an_equal_fence_for_a_repeat
    worlds = (
        run(seed, "AA", Faults(copy=0.3, is_scrubbed=True), make_fence) for seed in range(10 * RUNS)
    )
    assert any(world.visible != expected("AA") for world in worlds)


def _hidden(world: World) -> set[tuple[int, str, int]]:
    live = None if world.decision is None else world.decision.live_version
    return {point for point in world.points if point[0] != live}
