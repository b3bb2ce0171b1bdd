"""Dispatching goes on whatever happens to the process that was elected."""

import asyncio

import asyncpg
import pytest

from ingest.dispatch.election import Election
from shared.service.clients import postgres_pool
from shared.service.errors import DependencyError
from tests.support.stage_harness import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def candidate(servers: Servers, holder: str, lease_s: float = 60.0) -> Election:
    return Election(servers.pool, "dispatcher", holder, lease_s=lease_s, renewal_s=0.02)


async def test_one_candidate_wins_and_the_next_one_after_it_resigned(servers: Servers) -> None:
    first, second = candidate(servers, "a"), candidate(servers, "b")
    assert [await first.win(), await second.win(), await first.win()] == [True, False, True]
    await second.resign()  # of what it does not hold
    assert not await second.win()
    await first.resign()
    assert await second.win()


async def test_a_candidate_that_does_not_renew_loses(servers: Servers) -> None:
    """As one that is frozen, or whose host has vanished."""
    frozen, second = candidate(servers, "a", lease_s=0.2), candidate(servers, "b")
    assert await frozen.win()
    await wait_until(second.win, timeout=20, description="the lease has expired")
    assert not await frozen.win()


async def test_a_lease_that_is_kept_does_not_expire_until_another_process_has_it(
    servers: Servers,
) -> None:
    first, second = candidate(servers, "a", lease_s=5), candidate(servers, "b")
    assert await first.win()
    keeping = asyncio.create_task(first.keep())
    granted = await servers.pool.fetchval("SELECT expires_at FROM webhook.leases")

    async def renewed() -> bool:
        return bool(
            await servers.pool.fetchval("SELECT expires_at > $1 FROM webhook.leases", granted)
        )

    await wait_until(renewed, timeout=20, description="the lease is renewed")
    assert not await second.win()
    await servers.pool.execute("UPDATE webhook.leases SET holder = 'c'")
    await keeping


async def test_a_lease_that_cannot_be_renewed_ends_by_itself(servers: Servers) -> None:
    pool = await postgres_pool(servers.database_url, name="election")
    election = Election(pool, "dispatcher", "a", lease_s=0.3, renewal_s=0.02)
    assert await election.win()
    await pool.close()
    try:
        await asyncio.wait_for(election.keep(), 20)
    except (DependencyError, asyncpg.InterfaceError) as error:
        raise AssertionError("a lost connection ended the process instead of its lease") from error


async def test_a_frozen_client_keeps_no_locks(servers: Servers) -> None:
    pool = await postgres_pool(servers.database_url, name="election")
    try:
        rows = await pool.fetch(
            "SELECT name, setting FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', "
            "'tcp_user_timeout')"
        )
    finally:
        await pool.close()
    # Postgres shows 0 for TCP settings on a Unix socket; the tests connect over TCP.
    assert {row["name"]: row["setting"] for row in rows} == {
        "idle_in_transaction_session_timeout": "15000", "tcp_user_timeout": "15000"
    }  # fmt: skip
