"""Brings Qdrant to what Postgres says: a lost collection is filled again from the texts, one that
is not needed any more is deleted, and the aliases lead to the live collections.
"""

import asyncio

import asyncpg
import structlog
from qdrant_client import AsyncQdrantClient

from indexer.qdrant.collection import (
    alias_targets,
    collection_exists,
    collection_names,
    delete_collection,
    set_alias,
)
from indexer.recovery import Recovery
from shared.jobs.targets import Target, Targets
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
        loop = asyncio.get_running_loop()
        while True:
            next_look = loop.time() + _INTERVAL
            try:
                await self.look()
                while loop.time() < next_look and await self.recover():
                    pass
            except (MillstreamError, asyncpg.PostgresError) as error:
                log.warning("Collections not looked after", error=str(error))
            await asyncio.sleep(max(0.0, next_look - loop.time()))

    async def look(self) -> None:
        """Look after all targets once. Raises DependencyError if Qdrant or Postgres is unavailable.

        Asks Qdrant twice, however many targets there are.
        """
        stored = await collection_names(self._client)
        aliases = await alias_targets(self._client)
        in_use = await self._targets.in_use()
        await self._recovery.collections_back(
            [target.target for target in in_use if target.target in stored]
        )
        for target in in_use:
            if target.target not in stored:
                await self._begin_recovery(target.target)
            elif target.live:
                await set_alias(self._client, target.collection, target.target, aliases)
        for target in await self._targets.retired():
            if target.target not in stored:
                await self._targets.forget_documents(
                    target.target
                )  # so that a rollback brings all of them
        for target in await self._targets.dropped():
            await self._drop(target, stored)

    async def check(self, target: str) -> None:
        """Begin a recovery if a target's collection is missing. Call it before the collection is
        created.

        Raises DependencyError if Qdrant or Postgres is unavailable.
        """
        if not await collection_exists(self._client, target):
            await self._begin_recovery(target)

    async def recover(self) -> bool:
        """Queue one slice of each recovery. Returns whether there is more to queue. An error stops
        no other target.
        """
        has_more = False
        for target in await self._recovery.open():
            try:
                progress = await self._recovery.queue_slice(target)
            except (MillstreamError, asyncpg.PostgresError) as error:
                log.warning("Collections not looked after", target=target, error=str(error))
                continue
            if progress is not None and progress.is_last:
                log.error(
                    "Store lost, documents queued again",
                    target=target,
                    documents=progress.documents,
                )
            has_more |= progress is not None and not progress.is_last
        return has_more

    async def _begin_recovery(self, target: str) -> None:
        if await self._recovery.begin(target):
            log.error("Store lost", target=target)

    async def _drop(self, target: Target, stored: frozenset[str]) -> None:
        if target.target in stored and await delete_collection(self._client, target.target):
            log.info("Collection dropped", target=target.target)
        await self._targets.forget_documents(target.target)
        # Of transfers that were in flight when the target was dropped.
        await self._targets.close_dead_letters(target.target)
