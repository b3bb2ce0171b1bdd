"""Looks whether the collections are still there, and has a lost one filled again from the texts in Postgres."""

import asyncio

import asyncpg
import structlog
from qdrant_client import AsyncQdrantClient

from indexer.collection import collection_exists
from shared.errors import DependencyError
from shared.jobs.recovery import Recovery
from shared.jobs.targets import Targets

log = structlog.get_logger()

_INTERVAL = 10.0


class StoreGuard:
    """Notices that a collection is missing; any number of indexers may look."""

    def __init__(self, client: AsyncQdrantClient, targets: Targets, recovery: Recovery) -> None:
        self._client = client
        self._targets = targets
        self._recovery = recovery

    async def run(self) -> None:
        """Look after the live targets until cancelled, whether documents come or not."""
        while True:
            try:
                for target in await self._targets.all_live():
                    await self.check(target.target)
            except (DependencyError, asyncpg.PostgresError) as error:
                log.warning("Collections not looked after", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def check(self, target: str) -> None:
        """Queue the documents of a target again if its collection is missing though it had some.

        The first of them to come makes the collection anew. Raises DependencyError when Qdrant or Postgres is away.
        """
        if await collection_exists(self._client, target):
            return
        documents = await self._recovery.requeue_lost(target)
        if documents:
            log.error("Store lost, documents queued again", target=target, documents=documents)
