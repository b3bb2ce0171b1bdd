"""How many rows Postgres reads for a statement: the measure of what must not grow with a table."""

from typing import Any

import asyncpg
import msgspec
from asyncpg.connection import LoggedQuery

# Entries of indexes, and rows that were read without one. The session flushes its own counts first.
_ROWS = """
SELECT (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables)
     + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes)
"""
_FLUSH = "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()"


class Reading(msgspec.Struct):
    """What one call has cost, of all its statements."""

    seconds: list[float] = msgspec.field(default_factory=list)  # of each statement
    queries: list[LoggedQuery] = msgspec.field(default_factory=list)
    rows: int = 0  # read by all of them

    @property
    def slowest_s(self) -> float:
        return max(self.seconds, default=0.0)

    @property
    def rows_a_statement(self) -> float:
        return self.rows / max(1, len(self.seconds))


class Statements:
    """Adds the statements of a connection to the present reading."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.reading = Reading()
        connection.add_query_logger(self._add)

    def _add(self, query: LoggedQuery) -> None:
        self.reading.seconds.append(query.elapsed)
        self.reading.queries.append(query)


async def rows_read(pool: asyncpg.Pool) -> int:
    """Rows and entries of indexes that were read so far, by the sessions of a pool of one.

    Needs Postgres 15 or later.
    """
    await pool.fetch(_FLUSH)
    return int(await pool.fetchval(_ROWS))
