"""What an operator does to pending entries, on real Redis and Postgres: nothing is lost, doubled or
counted wrongly.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ingest.inspection.operator import NotPendingError, Operator, PendingConflictError, WantedEntry
from ingest.jobs.dead_letters import LetterFilter
from ingest.jobs.replay import replay
from shared.jobs.operations import OperationLog
from shared.jobs.progress import Progress
from shared.pipeline.entries import Consumer, Entry
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import EncodedMessage, NewerSchemaError
from shared.pipeline.outcomes import Done, ItemState, Outcome
from shared.pipeline.stages import OPERATOR, RELEASED, StageName
from shared.runtime.recorder import Recorder
from shared.runtime.stage import Document
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.handover import HandOver
from shared.service.metrics import Metrics
from tests.support.stage_harness import (
    FIRST_STREAM,
    Servers,
    abandon,
    accept_documents,
    depth,
    entries_of,
    pending,
    release_all,
    running_worker,
    states,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER = StageName.CHUNKER
NAME = f"{OPERATOR}desk"


def make_operator(
    servers: Servers, lease: float = 30.0, handover: type[HandOver] = HandOver
) -> Operator:
    consumer, metrics = Consumer(stage=CHUNKER, name=NAME, lease=lease), Metrics()
    recorder = Recorder(
        Progress(servers.pool, CHUNKER, NAME), OperationLog(servers.pool), metrics, CHUNKER
    )
    return Operator(servers.redis, consumer, recorder, handover(servers.redis, consumer, metrics))


async def abandoned(servers: Servers, documents: int = 3) -> tuple[str, WantedEntry]:
    """A job, and its one entry, which a consumer holds that has just died."""
    job = await accept_documents(servers, documents)
    await release_all(servers)
    await abandon(servers, idle=0)
    return job, await held(servers)


async def held(servers: Servers) -> WantedEntry:
    [row] = await pending(servers)
    return WantedEntry(id=row["message_id"].decode())


async def dead_letters(servers: Servers) -> list[tuple[Any, ...]]:
    rows = await servers.pool.fetch(
        "SELECT position, stage, code, error FROM webhook.dead_letters ORDER BY position"
    )
    return [tuple(row) for row in rows]


class Worked:
    """Handles documents: the first call never ends by itself, later ones do at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_started = asyncio.Event()
        self.is_cancelled = asyncio.Event()

    async def __call__(self, _document: Document) -> Outcome:
        self.calls += 1
        self.is_started.set()
        if self.calls == 1:
            try:
                await asyncio.Event().wait()
            finally:
                self.is_cancelled.set()
        return Done(ItemState.INDEXED)


async def test_a_claim_stops_the_worker_and_holds_the_entry_for_a_lease_without_a_delivery(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    handle = Worked()
    async with running_worker(servers, handle, lease=2.0):
        await asyncio.wait_for(handle.is_started.wait(), 15)
        claimed = await make_operator(servers, lease=2.0).claim(await held(servers))
        assert (claimed.taken_from, claimed.deliveries, claimed.held_for_s) == ("w1", 1, 2.0)
        [row] = await pending(servers)
        assert (row["consumer"], row["times_delivered"]) == (NAME.encode(), 0)
        await asyncio.wait_for(handle.is_cancelled.wait(), 5)
        assert await states(servers, job) == ["released"]
        # It is reclaimed when the lease has expired: still the first delivery, so it is not
        # quarantined.
        await wait_until(
            lambda: is_state(servers, job, "indexed"),
            description="the document to be worked on again",
        )
    assert handle.calls == 2


async def test_a_repeated_claim_starts_a_new_lease_without_changing_deliveries(
    servers: Servers,
) -> None:
    _, wanted = await abandoned(servers)
    await abandon(servers, deliveries=3)
    operator = make_operator(servers)
    await operator.claim(wanted)
    again = await operator.claim(wanted)
    assert (again.taken_from, again.deliveries) == (NAME, 2)
    [row] = await pending(servers)
    assert (row["times_delivered"], row["time_since_delivered"] < 20_000) == (2, True)


async def test_a_released_entry_goes_whole_to_the_next_worker_with_one_delivery(
    servers: Servers,
) -> None:
    job, wanted = await abandoned(servers)
    seen: list[str] = []

    async def handle(document: Document) -> Outcome:
        seen.append(document.ref.url)
        return Done(ItemState.INDEXED)

    taken = await make_operator(servers).release(wanted)
    assert (taken.taken_from, taken.lane, taken.deliveries) == ("dead", Lane.NORMAL, 1)
    [row] = await pending(servers)
    assert row["times_delivered"] == 0
    assert row["time_since_delivered"] > 30_000
    async with running_worker(servers, handle, lease=30.0) as worker:
        await wait_until(
            lambda: is_state(servers, job, "indexed"),
            description="the entry to be worked on at once",
        )
        assert worker.metrics.redeliveries.labels(CHUNKER)._value.get() == 0
    assert len(seen) == 3


async def test_dead_lettered_documents_end_their_job_and_can_be_replayed(servers: Servers) -> None:
    job, wanted = await abandoned(servers)
    report = await make_operator(servers).dead_letter(wanted, "it hangs every chunker")
    assert (report.taken_from, report.dead_letters) == ("dead", 3)
    assert await dead_letters(servers) == [
        (n, "chunker", "given_up", "it hangs every chunker") for n in range(3)
    ]
    row = await servers.pool.fetchrow(
        "SELECT status, failed FROM webhook.jobs WHERE job_id = $1", job
    )
    assert tuple(row) == ("failed", 3)
    assert (await pending(servers), await depth(servers, CHUNKER)) == ([], 0)
    consumers: Any = await servers.redis.xinfo_consumers(FIRST_STREAM, CHUNKER)
    assert NAME.encode() not in [consumer["name"] for consumer in consumers]
    assert (await replay(servers.pool, LetterFilter(job_id=job))).replayed == 3


async def test_an_entry_in_progress_is_dead_lettered_once_and_not_handed_over(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    handle = Worked()
    async with running_worker(servers, handle, lease=30.0):
        await asyncio.wait_for(handle.is_started.wait(), 15)
        await make_operator(servers).dead_letter(await held(servers), "stuck")
        await asyncio.wait_for(handle.is_cancelled.wait(), 5)
    assert await states(servers, job) == ["failed"]
    assert [dead_letter[0] for dead_letter in await dead_letters(servers)] == [0]
    assert (await depth(servers, CHUNKER), await depth(servers, StageName.EMBEDDER)) == (0, 0)


class Killed(HandOver):
    """The process dies when the dead letters are written and the entry is still there."""

    async def pass_on(self, entry: Entry, messages: Sequence[EncodedMessage] = ()) -> bool:
        raise RuntimeError(f"killed before {entry.id} was gone")


async def test_after_a_crash_between_dead_letters_and_removal_a_worker_only_ends_the_entry(
    servers: Servers,
) -> None:
    job, wanted = await abandoned(servers)
    with pytest.raises(RuntimeError, match="killed"):
        await make_operator(servers, lease=0.6, handover=Killed).dead_letter(wanted, "stuck")
    assert await depth(servers, CHUNKER) == 1
    handle = Worked()
    async with running_worker(servers, handle):

        async def is_empty() -> bool:
            return await depth(servers, CHUNKER) == 0

        await wait_until(is_empty, description="the entry to be ended")
    assert handle.calls == 0
    assert (len(await dead_letters(servers)), await states(servers, job)) == (3, ["failed"] * 3)


async def test_an_unreadable_entry_becomes_a_raw_dead_letter(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    await servers.redis.xadd(FIRST_STREAM, {"h": b"\xff", "b": b"body"})
    await abandon(servers, idle=0)
    assert (
        await make_operator(servers).dead_letter(await held(servers), "unreadable")
    ).dead_letters == 1
    dead_letter = await servers.pool.fetchrow("SELECT code, header, body FROM webhook.dead_letters")
    assert tuple(dead_letter) == ("malformed", b"\xff", b"body")
    assert await depth(servers, CHUNKER) == 0


async def test_an_entry_of_a_later_release_can_be_released_but_not_dead_lettered(
    servers: Servers,
) -> None:
    await create_groups(servers.redis, CHUNKER)
    await servers.redis.xadd(FIRST_STREAM, {"h": b'{"schema": 99, "documents": []}'})
    await abandon(servers, idle=0)
    operator = make_operator(servers)
    with pytest.raises(NewerSchemaError):
        await operator.dead_letter(await held(servers), "too new")
    assert [row["consumer"] for row in await pending(servers)] == [b"dead"]
    assert (await operator.release(await held(servers))).taken_from == "dead"


async def test_an_entry_held_by_another_consumer_than_expected_is_unchanged(
    servers: Servers,
) -> None:
    _, wanted = await abandoned(servers)
    operator = make_operator(servers)
    other = WantedEntry(id=wanted.id, consumer="chunker:host:1:aaaaaa")
    for act in (
        operator.claim(other),
        operator.release(other),
        operator.dead_letter(other, "stuck"),
    ):
        with pytest.raises(PendingConflictError, match="dead holds the entry"):
            await act
    assert [(row["consumer"], row["times_delivered"]) for row in await pending(servers)] == [
        (b"dead", 1)
    ]
    assert (await operator.claim(WantedEntry(id=wanted.id, consumer="dead"))).taken_from == "dead"


@pytest.mark.parametrize("is_read", [False, True])
async def test_an_entry_without_a_holder_is_not_pending(servers: Servers, is_read: bool) -> None:
    if is_read:
        await accept_documents(servers, 1)
        await release_all(servers)
    entry_id = (await entries_of(servers, FIRST_STREAM))[0][0].decode() if is_read else "1-1"
    with pytest.raises(NotPendingError):
        await make_operator(servers).claim(WantedEntry(id=entry_id))


async def test_a_deleted_entry_is_released_again(servers: Servers) -> None:
    _, wanted = await abandoned(servers)
    await servers.redis.xdel(FIRST_STREAM, wanted.id)
    assert await servers.redis.exists(RELEASED)
    with pytest.raises(NotPendingError):
        await make_operator(servers).dead_letter(wanted, "gone")
    assert not await servers.redis.exists(RELEASED)
    assert await dead_letters(servers) == []


async def test_one_id_in_two_lanes_requires_the_lane(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    for lane in (Lane.NORMAL, Lane.LOW):
        await servers.redis.xadd(CHUNKER.stream(lane), {"h": b"?"}, id="7-0")
        await servers.redis.xreadgroup(CHUNKER, "dead", {CHUNKER.stream(lane): ">"})
    operator = make_operator(servers)
    with pytest.raises(PendingConflictError, match="normal and low"):
        await operator.release(WantedEntry(id="7-0"))
    assert (await operator.release(WantedEntry(id="7-0", lane=Lane.LOW))).lane is Lane.LOW
    assert [row["consumer"] for row in await pending(servers)] == [b"dead"]


async def is_state(servers: Servers, job: str, state: str) -> bool:
    return set(await states(servers, job)) == {state}
