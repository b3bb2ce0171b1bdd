"""The housekeeper: applies the retention every ten minutes.

What is deleted is in `ingest/jobs/retention.py`.
"""

import asyncio
import datetime as dt

import asyncpg
import structlog

from ingest.jobs.retention import delete_old_rows, move_partitions
from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError

log = structlog.get_logger()

_LOCK = 0x6D696C6E
_INTERVAL_S = 600.0


class Housekeeper:
    """Cleans up every ten minutes; several may run at once."""

    def __init__(self, pool: PostgresPool, *, retention: float, cache_retention: float) -> None:
        """Both in seconds; `cache_retention` is that of embeddings."""
        self._pool = pool
        self._retention = retention
        self._cache_retention = cache_retention

    async def run(self) -> None:
        """Clean up until cancelled; a failed round is repeated at the next interval."""
        while True:
            try:
                await self.clean_up(dt.datetime.now(dt.UTC).date())
            except (
                DependencyError,
                asyncpg.PostgresError,
            ) as error:  # ingest accepts documents without it
                log.warning("Housekeeping interrupted", error=str(error))
            await asyncio.sleep(_INTERVAL_S)

    async def clean_up(self, today: dt.date) -> None:
        """Run one round, unless another process runs one.

        Raises DependencyError when Postgres is unavailable.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return
            await move_partitions(connection, today, self._retention)
        await delete_old_rows(
            self._pool, retention=self._retention, cache_retention=self._cache_retention
        )
