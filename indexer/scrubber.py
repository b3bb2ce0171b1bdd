"""The scrubber deletes points that no search shows and that no later step of the fence deletes.

A worker that was frozen for an hour, or a request that Qdrant carried out after its sender gave up,
can leave points of a version that was decided against. They are hidden, so slow passes over the
whole collection will do.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import asyncpg
import msgspec
import structlog

from indexer.qdrant.store import StoredPage, StoredPoint
from indexer.verifier import Verifier
from shared.jobs.registry import Decided
from shared.jobs.targets import Targets
from shared.service.errors import MillstreamError
from shared.service.metrics import ScrubberMetrics

log = structlog.get_logger()

_PAGE_POINTS = 1000
# Times the seconds that a page took: searches and upserts get the rest of Qdrant and Postgres.
_REST = 4.0


class Decisions(Protocol):
    """The part of the registry that the scrubber needs."""

    async def decided(self, target: str, document_ids: Sequence[str]) -> dict[str, Decided]: ...


class Points(Protocol):
    """The part of the point store that the scrubber needs."""

    async def page(self, collection: str, after: Any, limit: int) -> StoredPage: ...
    async def delete_points(self, collection: str, ids: Sequence[Any]) -> None: ...


class Scrubbed(msgspec.Struct, frozen=True):
    """One page, or one pass over a collection; `after` is where the next page begins, None at the
    end.
    """

    points: int
    removed: int
    after: Any = None


class Scrubber:
    """Looks at every point of a collection. Any number may do so at once."""

    def __init__(self, registry: Decisions, store: Points) -> None:
        self._registry = registry
        self._store = store

    async def scrub(self, target: str) -> Scrubbed:
        """One pass, most of which is rest. Raises DependencyError when Qdrant or Postgres is
        unavailable.
        """
        points, removed, after = 0, 0, None
        while True:
            started = time.monotonic()
            page = await self.scrub_page(target, after)
            points, removed, after = points + page.points, removed + page.removed, page.after
            if after is None:
                return Scrubbed(points, removed)
            await asyncio.sleep(_REST * (time.monotonic() - started))

    async def scrub_page(self, target: str, after: Any) -> Scrubbed:
        """One page. The registry is asked after the points were read, and what it says of them then
        stays true.
        """
        page = await self._store.page(target, after, _PAGE_POINTS)
        documents = sorted({point.document_id for point in page.points})
        left = left_points(
            page.points, await self._registry.decided(target, documents) if documents else {}
        )
        if left:
            await self._store.delete_points(target, [point.id for point in left])
        return Scrubbed(len(page.points), len(left), page.after)


class Scrubs:
    """Has each target scrubbed once an interval, by whichever indexer comes first.

    However many targets there are: one that is not due is not waited for, and one that is due waits
    only for the others.
    """

    def __init__(
        self,
        scrubber: Scrubber,
        verifier: Verifier,
        targets: Targets,
        metrics: ScrubberMetrics,
        interval: float,
    ) -> None:
        """`interval` in seconds."""
        self._scrubber = scrubber
        self._verifier = verifier
        self._targets = targets
        self._metrics = metrics
        self._interval = interval
        self._random = random.Random()  # noqa: S311 - spreads indexers, guards nothing

    async def run(self) -> None:
        """Scrub until cancelled; a pass that fails is done again an interval later."""
        while True:
            await asyncio.sleep(self._interval * self._random.uniform(0.5, 1.0))
            try:
                await self.scrub_due()
            except (MillstreamError, asyncpg.PostgresError) as error:
                log.warning("Scrubbing interrupted", error=str(error))

    async def scrub_due(self) -> None:
        """Scrub the targets that are due, one after the other; an error ends the pass of one only.

        Raises DependencyError if Postgres is unavailable.
        """
        while target := await self._targets.claim_scrub(self._interval):
            try:
                await self._scrub(target)
            except (MillstreamError, asyncpg.PostgresError) as error:
                log.warning("Scrubbing interrupted", target=target, error=str(error))

    async def _scrub(self, target: str) -> None:
        started = time.monotonic()
        scrubbed = await self._scrubber.scrub(target)
        self._metrics.passes.inc()
        self._metrics.points.inc(scrubbed.removed)
        log.info(
            "Collection scrubbed", collection=target, points=scrubbed.points,
            removed=scrubbed.removed,
            duration_ms=round((time.monotonic() - started) * 1000),
        )  # fmt: skip
        verified = await self._verifier.verify(target, repair=True)
        if verified.short:
            log.error(
                "Points lost, documents queued again", target=target, documents=verified.requeued
            )


def left_points(points: Iterable[StoredPoint], decided: Mapping[str, Decided]) -> list[StoredPoint]:
    """Those whose version was decided against. One above the fence is in progress, one that is live
    is shown.
    """
    return [
        point
        for point in points
        if (d := decided.get(point.document_id)) and d.is_against(point.version)
    ]
