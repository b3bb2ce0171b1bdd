"""The fence on batches that hold several versions of a document."""

import random
from collections.abc import Sequence

from qdrant_client.models import PointStruct

from indexer.fence import Candidate, Fence, Result
from shared.jobs.registry import Registration
from shared.pipeline.outcomes import ItemState
from shared.service.errors import RejectedError
from tests.unit.indexer.fence_model import DOCUMENT, TARGET, Faults, World


class PickyWorld(World):
    """A store that refuses some versions."""

    refused: frozenset[int] = frozenset()

    async def upsert(self, target: str, points: Sequence[PointStruct]) -> dict[str, RejectedError]:
        if any(point.payload and point.payload["version"] in self.refused for point in points):
            return {DOCUMENT: RejectedError("refused_by_qdrant", "no")}
        return await super().upsert(target, points)


def candidate(version: int, content: str = "A") -> Candidate:
    points = [
        PointStruct(
            id=1, vector={}, payload={"version": version, "text": content, "chunk_index": 0}
        )
    ]
    return Candidate(
        registration=Registration(document_id=DOCUMENT, version=version, is_live=True, url=content),
        points=points,
    )


def apply(world: World, *candidates: Candidate) -> list[Result]:
    run = Fence(world, world).apply(TARGET, candidates)
    try:
        while True:
            run.send(None)
    except StopIteration as end:
        results: list[Result] = end.value
        return results


def test_the_latest_version_of_a_batch_wins_and_the_others_are_superseded() -> None:
    world = World(random.Random(1), Faults())
    assert apply(world, candidate(2), candidate(3, "B"), candidate(1)) == [
        ItemState.SUPERSEDED, ItemState.INDEXED, ItemState.SUPERSEDED,
    ]  # fmt: skip
    assert world.visible == {("B", 0)}


def test_where_the_latest_version_is_refused_the_one_before_it_is_found() -> None:
    world = PickyWorld(random.Random(1), Faults())
    world.refused = frozenset({3})
    first, second, third = apply(world, candidate(1), candidate(2, "B"), candidate(3, "C"))
    assert (first, second) == (ItemState.SUPERSEDED, ItemState.INDEXED)
    assert isinstance(third, RejectedError)
    assert world.visible == {("B", 0)}
