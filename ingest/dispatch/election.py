"""Election of one process by a lease in Postgres, without session state, so also behind pgbouncer.

A holder that is frozen or cut off loses its lease after six seconds. It may act once more before it
notices: what it does must be refused by other means, as the release marker does for releases.
"""

import asyncio
import contextlib

from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError

DISPATCHER = "dispatcher"  # name of the lease
LEASE_S = 6.0  # dispatch continues at most ten seconds after the last renewal
RENEWAL_S = 1.0

_WIN = """
INSERT INTO webhook.leases AS l (name, holder, expires_at)
VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE l.holder = excluded.holder OR l.expires_at < now()
RETURNING true
"""

_RESIGN = "DELETE FROM webhook.leases WHERE name = $1 AND holder = $2"


class LostElectionError(Exception):
    """The lease expired, and another process may hold it now."""


class Election:
    """One candidate. Raises DependencyError when Postgres is unavailable."""

    def __init__(
        self,
        pool: PostgresPool,
        name: str,
        holder: str,
        *,
        lease_s: float = LEASE_S,
        renewal_s: float = RENEWAL_S,
    ) -> None:
        self._pool = pool
        self._name = name
        self._holder = holder
        self._lease_s = lease_s
        self._renewal_s = renewal_s

    async def win(self) -> bool:
        """Take the lease if it is free, or renew it; returns whether this process holds it."""
        return bool(await self._pool.fetchval(_WIN, self._name, self._holder, self._lease_s))

    async def keep(self) -> None:
        """Renew the lease until it is lost; then return."""
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + self._lease_s
        while loop.time() < expires_at:
            await asyncio.sleep(self._renewal_s)
            asked_at = loop.time()
            with contextlib.suppress(DependencyError):  # repeated until the lease has expired
                if not await self.win():
                    return
                expires_at = asked_at + self._lease_s

    async def resign(self) -> None:
        """Release the lease, so that another process can win before it expires."""
        with contextlib.suppress(DependencyError):
            await self._pool.execute(_RESIGN, self._name, self._holder)
