"""Sees to it that Qdrant has what Postgres says: a lost collection is filled again from the texts, one that nobody
needs goes, and the aliases lead to the live ones.
"""

import asyncio

import asyncpg
import structlog
from qdrant_client import AsyncQdrantClient

from indexer.qdrant.collection import collection_exists, delete_collection, point_alias
from indexer.recovery import Recovery
from shared.jobs.targets import Targets
from shared.service.errors import MillstreamError

log = structlog.get_logger()

_INTERVAL = 10.0


class StoreGuard:
    """Notices what is missing and what is left; any number of indexers may look."""

    def __init__(self, client: AsyncQdrantClient, targets: Targets, recovery: Recovery) -> None:
        self._client = client
        self._targets = targets
        self._recovery = recovery

    async def run(self) -> None:
        """Look after the targets until cancelled, whether documents come or not."""
        while True:
            try:
                await self.look()
            except (MillstreamError, asyncpg.PostgresError) as error:
                log.warning("Collections not looked after", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Look after all targets once. Raises DependencyError when Qdrant or Postgres is away."""
        for target in await self._targets.in_use():
            if await self.check(target.target) and target.live:
                await point_alias(self._client, target.collection, target.target)
        for target in await self._targets.retired():
            if not await collection_exists(self._client, target.target):
                await self._targets.forget_documents(target.target)  # so that a rollback brings all of them
        for target in await self._targets.dropped():
            if await delete_collection(self._client, target.target):
                log.info("Collection dropped", target=target.target)
            await self._targets.forget_documents(target.target)

    async def check(self, target: str) -> bool:
        """Whether a target's collection is there. If not, and it had documents, these are queued again.

        The first of them to come makes the collection anew. Raises DependencyError when Qdrant or Postgres is away.
        """
        if await collection_exists(self._client, target):
            return True
        documents = await self._recovery.requeue_lost(target)
        if documents:
            log.error("Store lost, documents queued again", target=target, documents=documents)
        return False
