"""The Qdrant collections of the targets, created when their first document comes."""

import contextlib
from collections.abc import Iterator

import structlog
from qdrant_client import AsyncQdrantClient

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import MissingCollectionError
from indexer.qdrant.collection import (
    Collection,
    DimensionMismatchError,
    GenerationMismatchError,
    alias_targets,
    ensure_collection,
    set_alias,
)
from indexer.store_guard import StoreGuard
from shared.jobs.targets import Target
from shared.service.errors import DependencyError

log = structlog.get_logger()


class TargetCollections:
    """Remembers which collections are there. Any number of indexers may create the same one."""

    def __init__(
        self, client: AsyncQdrantClient, guard: StoreGuard, keyword: KeywordParameters
    ) -> None:
        """`keyword` is for collections that are created; one that is there keeps its own
        parameters.
        """
        self._client = client
        self._guard = guard
        self._keyword = keyword
        self._ready: dict[str, tuple[Collection, KeywordEncoder]] = {}

    async def encoder(self, target: Target, dimension: int) -> KeywordEncoder:
        """Return the keyword encoder of the target's collection, created if it is missing."""
        ready = self._ready.get(target.target)
        if ready is None or (ready[0].generation, ready[0].dimension) != (
            target.generation,
            dimension,
        ):
            collection = await self._ensure(target, dimension)
            ready = self._ready[target.target] = (collection, KeywordEncoder(collection.keyword))
        return ready[1]

    @contextlib.contextmanager
    def used(self, target: Target) -> Iterator[None]:
        """Within the block a collection that is missing is forgotten, so that the next try creates
        it.
        """
        try:
            yield
        except MissingCollectionError:
            self._ready.pop(target.target, None)
            raise

    async def _ensure(self, target: Target, dimension: int) -> Collection:
        await self._guard.check(target.target)
        try:
            collection = await ensure_collection(
                self._client,
                target.target,
                dimension=dimension,
                generation=target.generation,
                keyword=self._keyword,
            )
        except (GenerationMismatchError, DimensionMismatchError) as error:
            raise DependencyError(
                "qdrant", str(error)
            ) from error  # a person must act; no document is at fault
        # Also if it was there: its creator may have crashed before this point.
        if target.live:
            await set_alias(
                self._client, target.collection, target.target, await alias_targets(self._client)
            )
        if collection.keyword != self._keyword:
            log.warning("Keyword settings differ from the collection's", collection=target.target)
        return collection
