"""The housekeeper: applies the retention every ten minutes.

What is deleted is in `ingest/jobs/retention.py`.
"""

import asyncio
import datetime as dt

import asyncpg
import structlog

from ingest.jobs.retention import ROWS, Part, Retention, move_partitions
from shared.service.clients import PostgresPool, postgres_errors
from shared.service.errors import DependencyError

log = structlog.get_logger()

_LOCK = 0x6D696C6E
_INTERVAL_S = 600.0


class Housekeeper:
    """Cleans up every ten minutes; several may run at once."""

    def __init__(
        self, pool: PostgresPool, *, retention: float, cache_retention: float, rows: int = ROWS
    ) -> None:
        """Both in seconds; `cache_retention` is that of embeddings. `rows` of one statement."""
        self._pool = pool
        self._retention = retention
        self._rows = Retention(
            pool, retention=retention, cache_retention=cache_retention, rows=rows
        )

    async def run(self) -> None:
        """Clean up until cancelled."""
        while True:
            await self.clean_up(dt.datetime.now(dt.UTC).date())
            await asyncio.sleep(_INTERVAL_S)

    async def clean_up(self, today: dt.date) -> None:
        """Run one round. A part that fails stops no other; the next round repeats it."""
        await self._try("partitions", lambda: self._partitions(today))
        for name, part in self._rows.parts.items():
            await self._try(name, part)

    async def _try(self, name: str, part: Part) -> None:
        try:
            await part()
        except (DependencyError, asyncpg.PostgresError) as error:
            log.warning("Housekeeping interrupted", part=name, error=str(error))

    async def _partitions(self, today: dt.date) -> None:
        """Unless another process does it now."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                    await move_partitions(connection, today, self._retention)
