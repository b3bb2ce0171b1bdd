"""What was in flight when a worker crashed: it runs again, then alone, then it is a dead letter."""

import asyncio

import pytest

from shared.pipeline.outcomes import Done, ItemState, Outcome
from shared.runtime.stage import Document
from tests.support.stage_harness import (
    Servers,
    abandon,
    accept_documents,
    job_status,
    pending,
    release_all,
    running_worker,
    states,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def done(_document: Document) -> Outcome:
    return Done(ItemState.INDEXED, 1)


async def test_a_dead_consumers_batch_is_split_and_finished_by_another(servers: Servers) -> None:
    job = await accept_documents(servers, 8)
    await release_all(servers)
    await abandon(servers, deliveries=2)
    seen: list[int] = []

    async def handle(document: Document) -> Outcome:
        seen.append(document.ref.position)
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert sorted(seen) == list(range(8))
    assert await states(servers, job) == ["indexed"] * 8


async def test_what_was_in_flight_at_a_crash_takes_half_of_the_slots_and_stops_nobody(
    servers: Servers,
) -> None:
    stuck = await accept_documents(servers, 40)
    await release_all(servers)
    await abandon(servers)
    other = await accept_documents(servers, 4, source="other")
    await release_all(servers)
    goes_on = asyncio.Event()
    begun: set[int] = set()

    async def handle(document: Document) -> Outcome:
        if document.ref.job_id == stuck:
            begun.add(document.ref.position)
            await goes_on.wait()
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle, stage_concurrency=4):
        await wait_until(lambda: len(begun) == 8, description="two batches side by side")
        await wait_until(lambda: job_status(servers, other), description="the other job's end")
        assert len(begun) == 8, "two of four slots are for what runs again"
        goes_on.set()
        await wait_until(lambda: job_status(servers, stuck), description="the job's end")
    assert await states(servers, stuck) == ["indexed"] * 40


async def test_quarantined_entries_run_alone(servers: Servers) -> None:
    job = await accept_documents(servers, 6)
    await release_all(servers)
    await abandon(servers, deliveries=2)
    running = highest = 0

    async def handle(_document: Document) -> Outcome:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await pending(servers)  # time for another one to be seen beside it
        running -= 1
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert highest == 1


async def test_a_quarantined_entry_counts_a_delivery_while_it_runs_and_not_while_it_waits(
    servers: Servers,
) -> None:
    quarantined = await accept_documents(servers, 1)
    await release_all(servers)
    await abandon(servers, deliveries=2, idle=0)
    other = await accept_documents(servers, 1)
    await release_all(servers)
    finish = {job: asyncio.Event() for job in (other, quarantined)}

    async def handle(document: Document) -> Outcome:
        await finish[document.ref.job_id].wait()
        return Done(ItemState.INDEXED)

    async def deliveries(count: int) -> bool:
        rows = {
            row["consumer"]: row["times_delivered"]
            for row in await pending(servers)
            if row["message_id"] == first
        }
        return rows == {b"worker": count}

    first = (await pending(servers))[0]["message_id"]
    async with running_worker(servers, handle, consumer="worker"):
        await wait_until(
            lambda: deliveries(2), description="the quarantined entry to wait, uncounted"
        )
        finish[other].set()
        await wait_until(lambda: deliveries(3), description="the quarantined entry to run, counted")
        finish[quarantined].set()
        await wait_until(lambda: job_status(servers, quarantined), description="the job's end")


async def test_a_document_whose_worker_died_too_often_is_a_dead_letter(servers: Servers) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    await abandon(servers, deliveries=4)
    async with running_worker(servers, done):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    dead_letter = await servers.pool.fetchrow("SELECT code, deliveries FROM webhook.dead_letters")
    assert tuple(dead_letter) == ("too_many_deliveries", 5)
