"""Whose turn it is to be scrubbed, on a real Postgres; the points are fakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from indexer.qdrant.store import StoredPage
from indexer.scrubber import Scrubber, Scrubs
from indexer.verifier import Verifier
from shared.jobs.registry import Registry
from shared.jobs.targets import Targets
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")


class NoPoints:
    """Collections without points, one of which cannot be read."""

    def __init__(self, broken: str) -> None:
        self.read: list[str] = []
        self._broken = broken

    async def page(self, collection: str, after: Any, limit: int) -> StoredPage:
        self.read.append(collection)
        if collection == self._broken:
            raise DependencyError("qdrant", "broken")
        return StoredPage(points=[], after=None)

    async def delete_points(self, collection: str, ids: Sequence[Any]) -> None:
        raise AssertionError("there are no points")

    async def count_versions(self, collection: str, versions: Sequence[int]) -> Mapping[int, int]:
        return {}


def scrubs(servers: Servers, points: NoPoints) -> Scrubs:
    verifier = Verifier(servers.pool, points, 600, rest=0)
    scrubber = Scrubber(Registry(servers.pool), points)
    return Scrubs(scrubber, verifier, Targets(servers.pool), Metrics().scrubber, 3600)


async def test_all_targets_that_are_due_are_scrubbed_and_a_broken_one_stops_no_other(
    servers: Servers,
) -> None:
    """Before, an indexer scrubbed one target an interval: 1,000 collections took weeks."""
    for collection in ("a", "b", "c"):
        await Targets(servers.pool).ensure(collection)
    points = NoPoints(broken="a_1")
    await scrubs(servers, points).scrub_due()
    assert sorted(points.read) == ["a_1", "b_1", "c_1"]
    await scrubs(servers, points).scrub_due()  # none is due for an hour
    assert len(points.read) == 3
