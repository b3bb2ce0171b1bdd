"""Leases: what is renewed, and what happens to work whose lease is lost."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.pipeline.entries import Entry
from shared.runtime.streams.leases import Leases
from tests.unit.shared.runtime.fakes import CONSUMER, STAGE, FakeScripts, entry, settle


def leases_of(redis: FakeScripts) -> Leases:
    return Leases(redis, CONSUMER, renewal=5.0)  # type: ignore[arg-type]


def fail(_keys: Any, _args: Any) -> Any:
    raise RedisConnectionError("refused")


async def held(leases: Leases, item: Entry) -> str:
    """Work on an entry without an end; tells how the block was left."""
    with leases.hold(item):
        await asyncio.Event().wait()
    return "left"


async def test_nothing_is_renewed_while_nothing_is_held() -> None:
    redis = FakeScripts()
    await leases_of(redis).renew()
    assert redis.calls == []


async def test_every_entry_that_is_held_is_renewed_in_one_call() -> None:
    redis = FakeScripts(renew=lambda _keys, _args: [])
    leases = leases_of(redis)
    tasks = [asyncio.create_task(held(leases, entry(entry_id=name))) for name in ("1-0", "2-0")]
    await settle()
    await leases.renew()
    stream = entry().stream
    assert redis.called("renew") == [([stream], [STAGE, "me", 1, "1-0", 1, "2-0"])]
    assert [each.id for each in leases.held] == ["1-0", "2-0"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert leases.held == []


async def test_a_lost_lease_cancels_its_work_alone_and_leaves_the_block() -> None:
    redis = FakeScripts(renew=lambda _keys, _args: [1])  # the second pair
    leases = leases_of(redis)
    kept, lost = (
        asyncio.create_task(held(leases, entry(entry_id=name))) for name in ("1-0", "2-0")
    )
    await settle()
    await leases.renew()
    assert await lost == "left"
    assert not kept.done()
    assert not leases.holds(entry().stream, "2-0")
    kept.cancel()
    await asyncio.wait({kept})


async def test_a_cancellation_for_another_reason_is_not_taken_for_a_lost_lease() -> None:
    task = asyncio.create_task(held(leases_of(FakeScripts()), entry()))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_process_that_stops_wins_over_a_lost_lease() -> None:
    redis = FakeScripts(renew=lambda _keys, _args: [0])
    leases = leases_of(redis)
    task = asyncio.create_task(held(leases, entry()))
    await settle()
    await leases.renew()
    task.cancel()  # before the task has seen that its lease is lost
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_released_entry_gets_its_delivery_back_and_may_be_reclaimed_at_once() -> None:
    redis = FakeScripts(recount=lambda _keys, _args: 1)
    await leases_of(redis).release(entry())
    assert redis.called("recount") == [([entry().stream], [STAGE, "me", "1-0", -1, 30_001])]


async def test_without_redis_an_entry_is_left_to_its_lease() -> None:
    leases = leases_of(FakeScripts(recount=fail))
    await leases.release(entry())
    await leases.uncount(entry())
    assert await leases.count(entry()) is False


@pytest.mark.parametrize(("answer", "is_ours"), [(1, True), (0, False)])
async def test_a_delivery_counts_only_for_the_owner(answer: int, is_ours: bool) -> None:
    redis = FakeScripts(recount=lambda _keys, _args: answer)
    assert await leases_of(redis).count(entry()) is is_ours
    assert redis.called("recount") == [([entry().stream], [STAGE, "me", "1-0", 1, 0])]
