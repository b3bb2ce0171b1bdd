"""The steps of a reindex on real Redis and Postgres: what is transferred when, and what nobody may
do in the pause.
"""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from msgspec.structs import replace

from ingest.dispatch.dispatcher import RefusedReleaseError
from ingest.jobs.control import JobControl
from ingest.jobs.reindexes import Phase, Reindexes
from shared.jobs.targets import Targets
from shared.pipeline.messages import Action
from tests.support.documents import COLLECTION
from tests.support.reindexing import (
    begin,
    decided,
    elected,
    finish,
    index,
    live_target,
    send,
    state_of,
    taken,
    turn,
    work,
)
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD = f"{COLLECTION}_1"


async def until(
    servers: Servers, phase: Phase, each: Callable[[], Awaitable[object]] | None = None
) -> int:
    """Let the dispatcher and the stages take turns until the phase is reached, a new dispatcher for
    each turn.
    """
    for turns in range(40):
        if (await state_of(servers)).phase is phase:
            return turns
        await turn(await elected(servers))
        await work(servers)
        if each is not None:
            await each()
    raise AssertionError(f"not {phase}: {await state_of(servers)}")


async def test_documents_and_tombstones_are_transferred_with_their_versions_by_ever_new_dispatchers(
    servers: Servers,
) -> None:
    await send(servers, "a", "b", "gone")
    await index(servers, "gone", action=Action.DELETE)
    new = await begin(servers)
    assert await live_target(servers) == OLD
    await until(servers, Phase.SWITCHED)
    assert await live_target(servers) == new
    assert await decided(servers, new) == await decided(servers, OLD)
    assert {name: is_live for name, (_, is_live) in (await decided(servers, new)).items()} == {
        "a": True, "b": True, "gone": False,
    }  # fmt: skip


async def test_what_comes_meanwhile_is_transferred_as_well(servers: Servers) -> None:
    await index(servers, "a", "b")
    new = await begin(servers)
    rounds = iter(["c", "a", "b"])

    async def go_on() -> None:
        if name := next(rounds, None):
            await send(servers, name, action=Action.DELETE if name == "b" else Action.INDEX)

    await until(servers, Phase.SWITCHED, go_on)
    await turn(await elected(servers))
    await work(servers)
    states = await decided(servers, new)
    assert {name: is_live for name, (_, is_live) in states.items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert states["a"][0] > states["c"][0]


async def test_in_the_pause_only_transfers_are_released_and_the_rest_goes_to_the_new_target(
    servers: Servers,
) -> None:
    await index(servers, "a")
    new = await begin(servers)
    await until(servers, Phase.PAUSING)
    await send(servers, "late")
    await send(servers, "a", action=Action.DELETE)
    dispatcher = await elected(servers)
    for _ in range(3):
        await turn(dispatcher)
        assert {target for target, _ in await taken(servers)} <= {new}
        if await live_target(servers) == new:
            break
    assert await live_target(servers) == new
    await turn(dispatcher)
    await work(servers)
    assert {name: is_live for name, (_, is_live) in (await decided(servers, new)).items()} == {
        "a": False, "late": True,
    }  # fmt: skip
    assert "late" not in await decided(servers, OLD)


async def test_nothing_is_switched_while_something_is_in_flight_to_the_old_target(
    servers: Servers,
) -> None:
    await send(servers, "a")
    dispatcher = await elected(servers)
    await turn(dispatcher)
    await work(servers)
    await send(servers, "slow")
    await turn(dispatcher)
    ((target, slow),) = await taken(servers)
    new = await begin(servers)
    await until(servers, Phase.PAUSING)
    for _ in range(4):
        await turn(dispatcher)
        await work(servers)
    assert (await live_target(servers), (await state_of(servers)).phase) == (OLD, Phase.PAUSING)
    await finish(servers, target, slow)
    await until(servers, Phase.SWITCHED)
    assert await decided(servers, new) == await decided(servers, OLD)
    assert "slow" in await decided(servers, new)


async def test_a_deposed_dispatcher_releases_nothing_to_the_old_target_in_the_pause(
    servers: Servers,
) -> None:
    await send(servers, "a")
    deposed = await elected(servers)
    await turn(deposed)
    await work(servers)
    await begin(servers)
    await deposed.check_marker()
    await until(servers, Phase.PAUSING)
    await turn(await elected(servers))
    await work(servers)
    await send(servers, "late")
    with pytest.raises(RefusedReleaseError):
        await deposed.release_some()
    assert await taken(servers) == []
    assert (
        await servers.pool.fetchval("SELECT count(*) FROM webhook.job_items WHERE state = 'queued'")
        == 1
    )


async def test_a_pause_that_comes_to_no_end_gives_way(servers: Servers) -> None:
    await send(servers, "stuck")
    dispatcher = await elected(servers)
    await turn(dispatcher)
    await taken(servers)
    await begin(servers)
    await until(servers, Phase.PAUSING)
    await servers.pool.execute(
        "UPDATE webhook.reindexes SET phase_since = now() - interval '11 minutes'"
    )
    await send(servers, "other")
    await turn(dispatcher)
    state = await state_of(servers)
    assert (state.phase, "did not end" in str(state.error)) == (Phase.FILLING, True)
    await turn(dispatcher)
    assert [ref.url for _, ref in await taken(servers)] == ["https://example.com/other"]


async def test_a_transfer_that_fails_holds_the_switch_until_it_is_skipped(servers: Servers) -> None:
    await index(servers, "good", "bad")
    new = await begin(servers)
    for _ in range(6):
        await turn(await elected(servers))
        await work(servers, failing="/bad")
    state = await state_of(servers)
    assert (state.phase, state.failed, state.missing, await live_target(servers)) == (
        Phase.FILLING,
        1,
        1,
        OLD,
    )
    assert "could not be transferred" in str(state.error)
    assert await Reindexes(servers.pool).skip_failed(COLLECTION)
    await until(servers, Phase.SWITCHED)
    assert list(await decided(servers, new)) == ["good"]


async def test_a_failed_transfer_that_is_tried_again_lets_the_reindex_go_on(
    servers: Servers,
) -> None:
    await index(servers, "bad")
    new = await begin(servers)
    for _ in range(4):
        await turn(await elected(servers))
        await work(servers, failing="/bad")
    job_id = await servers.pool.fetchval(
        "SELECT job_id::text FROM webhook.jobs WHERE kind = 'reindex_job'"
    )
    assert await JobControl(servers.pool).retry_failed(job_id) == 1
    await servers.pool.execute("UPDATE webhook.reindexes SET resume_at = now()")
    await until(servers, Phase.SWITCHED)
    assert await decided(servers, new) == await decided(servers, OLD)


async def test_a_rollback_brings_along_what_changed_since_the_switch(servers: Servers) -> None:
    await index(servers, "same", "changed", "gone")
    new = await begin(servers)
    await until(servers, Phase.SWITCHED)
    await send(servers, "changed", "fresh")
    await index(servers, "gone", action=Action.DELETE)

    reindexes = Reindexes(servers.pool)
    assert await reindexes.last_retired(COLLECTION, None) == OLD
    assert await reindexes.start(OLD, is_rollback=True, skip_failed=False)
    await until(servers, Phase.SWITCHED)
    assert await live_target(servers) == OLD
    assert await decided(servers, OLD) == await decided(servers, new)
    assert (await state_of(servers)).transferred == 3
    assert await reindexes.last_retired(COLLECTION, None) == new


async def test_a_cancelled_reindex_leaves_everything_as_it_is(servers: Servers) -> None:
    await index(servers, "a", "b")
    new = await begin(servers)
    dispatcher = await elected(servers)
    await dispatcher.reindex()
    reindexes = Reindexes(servers.pool)
    cancelled = await reindexes.cancel(COLLECTION)
    assert cancelled is not None
    assert (cancelled.target, cancelled.is_repeated, cancelled.discarded) == (new, False, 0)
    (job_id,) = cancelled.jobs
    assert (await JobControl(servers.pool).cancel(job_id)).cancelled == 2
    assert await reindexes.cancel(COLLECTION) == replace(cancelled, is_repeated=True, jobs=[])
    await turn(dispatcher)
    assert await taken(servers) == []
    assert await live_target(servers) == OLD
    assert [target.target for target in await Targets(servers.pool).dropped()] == [new]
    assert await begin(servers) == f"{COLLECTION}_3"


async def test_a_collection_has_one_reindex_at_a_time(servers: Servers) -> None:
    await send(servers, "a")
    await begin(servers)
    with pytest.raises(asyncpg.UniqueViolationError):
        await begin(servers)


async def test_two_dispatchers_that_both_believe_they_are_elected_do_each_step_once(
    servers: Servers,
) -> None:
    await index(servers, *[f"page-{n}" for n in range(20)])
    new = await begin(servers)
    both = [await elected(servers), await elected(servers)]
    for _ in range(12):
        await asyncio.gather(*(dispatcher.reindex() for dispatcher in both), return_exceptions=True)
        await turn(await elected(servers))
        await work(servers)
    state = await state_of(servers)
    assert (state.phase, state.transferred, await live_target(servers)) == (Phase.SWITCHED, 20, new)


async def test_streams_that_were_shut_for_one_pause_are_not_shut_for_the_next(
    servers: Servers,
) -> None:
    await index(servers, "a")
    await begin(servers)
    await until(servers, Phase.PAUSING)
    slow = await elected(servers)  # knows the first pause, and then does nothing for long
    await slow.reindex()
    await servers.pool.execute(
        "UPDATE webhook.reindexes SET phase_since = now() + interval '1 second', pass = pass + 1"
    )
    other = await elected(servers)
    await send(servers, "late")
    assert await other.release_some() == 1  # it has not looked yet
    with pytest.raises(RefusedReleaseError):
        await slow.reindex()
    assert await live_target(servers) == OLD
