"""The stage loop on real Redis and Postgres: leases, reclaim, quarantine, isolation, drain."""

import asyncio
from typing import Any

import pytest

from shared.pipeline.entries import Consumer
from shared.pipeline.lanes import Lane
from shared.pipeline.outcomes import Done, Emit, ItemState, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.faults.correlated_failure import Rests
from shared.runtime.stage import Document
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.janitor import Janitor
from shared.runtime.worker import Worker
from shared.service.clients import redis_command
from shared.service.errors import DependencyError, DrainingError, RejectedError
from shared.tei.client import BreakingTextError, InputRejectedError
from tests.support.stage_harness import (
    Servers,
    accept_documents,
    depth,
    job_status,
    make_dispatcher,
    pending,
    release_all,
    running_worker,
    states,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER, EMBEDDER = StageName.CHUNKER, StageName.EMBEDDER
STREAM = CHUNKER.stream(Lane.NORMAL)


async def emit(_document: Document) -> Outcome:
    return Emit({"text": "chunk"}, 1)


async def done(_document: Document) -> Outcome:
    return Done(ItemState.INDEXED, 1)


async def test_documents_go_on_to_the_next_stage_and_leave_nothing_behind(servers: Servers) -> None:
    job = await accept_documents(servers, 10)
    await release_all(servers)
    async with running_worker(servers, emit):
        await wait_until(
            lambda: depth_is(servers, EMBEDDER, 3), description="entries for the embedder"
        )
    assert await depth(servers, CHUNKER) == 0
    assert await states(servers, job) == ["released"] * 10


async def test_what_ends_is_counted_and_the_last_one_finishes_the_job(servers: Servers) -> None:
    job = await accept_documents(servers, 9)
    await release_all(servers)

    async def handle(document: Document) -> Outcome:
        if document.ref.position == 4:
            raise RejectedError("bad", "a bad document")
        return Done(ItemState.INDEXED, 2)

    async with running_worker(servers, handle):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    row = await servers.pool.fetchrow(
        "SELECT status, succeeded, failed FROM webhook.jobs WHERE job_id = $1", job
    )
    assert tuple(row) == ("partial", 8, 1)
    dead_letters = await servers.pool.fetch(
        "SELECT position, stage, code, error FROM webhook.dead_letters"
    )
    assert [tuple(dead_letter) for dead_letter in dead_letters] == [
        (4, "chunker", "bad", "a bad document")
    ]


async def test_a_crawl_that_holds_all_slots_keeps_no_urgent_document_waiting(
    servers: Servers,
) -> None:
    crawl = await accept_documents(servers, 8, lane=Lane.LOW)
    await release_all(servers)
    goes_on = asyncio.Event()

    async def handle(document: Document) -> Outcome:
        if document.ref.job_id == crawl:
            await goes_on.wait()
        return Done(ItemState.INDEXED, 1)

    async with running_worker(servers, handle, stage_concurrency=1):
        await wait_until(
            lambda: pending_count(servers, CHUNKER.stream(Lane.LOW)),
            description="the crawl in flight",
        )
        urgent = await accept_documents(servers, 1, source="somebody", lane=Lane.HIGH)
        await release_all(servers)
        await wait_until(
            lambda: job_status(servers, urgent), description="the urgent document's end"
        )
        assert await pending_count(servers, CHUNKER.stream(Lane.LOW)) == 1, (
            "the crawl has no more slots than it had"
        )
        goes_on.set()
        await wait_until(lambda: job_status(servers, crawl), description="the crawl's end")


async def test_a_lease_is_renewed_as_long_as_the_work_runs(servers: Servers) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    handled: list[str] = []
    finish = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        handled.append("started")
        await finish.wait()
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle, consumer="w1"):
        await wait_until(lambda: truth(handled), description="the work to start")
        async with running_worker(servers, done, consumer="w2"):
            await looks_for_abandoned_entries(servers, 40)  # of both, for more than two leases
        assert await states(servers, job) == ["released"]
        finish.set()
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert handled == ["started"]


async def test_a_lost_lease_cancels_the_work_and_writes_nothing(servers: Servers) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    cancelled = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    async with running_worker(servers, handle):
        await wait_until(lambda: pending_count(servers), description="the work to start")
        [row] = await pending(servers)
        await servers.redis.xclaim(STREAM, CHUNKER, "thief", 0, [row["message_id"]], justid=True)
        await asyncio.wait_for(cancelled.wait(), 5)
    assert await states(servers, job) == ["released"]
    assert [row["consumer"] for row in await pending(servers)] == [b"thief"]


async def test_a_hand_over_without_the_lease_changes_nothing(servers: Servers) -> None:
    await accept_documents(servers, 1)
    await release_all(servers)
    is_stolen = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        [row] = await pending(servers)
        await servers.redis.xclaim(STREAM, CHUNKER, "thief", 0, [row["message_id"]], justid=True)
        is_stolen.set()
        return Emit({}, 1)

    # Renewals that are too rare to notice: the script itself must.
    async with running_worker(servers, handle, lease_renewal=60.0):
        await is_stolen.wait()
    assert await depth(servers, EMBEDDER) == 0
    assert [row["consumer"] for row in await pending(servers)] == [b"thief"]


async def test_a_copy_of_an_item_that_was_released_again_is_left_alone(servers: Servers) -> None:
    job = await accept_documents(servers, 4)
    await release_all(servers)
    await servers.pool.execute(
        "UPDATE webhook.job_items SET release = release + 1 WHERE position < 2"
    )
    seen: list[int] = []

    async def handle(document: Document) -> Outcome:
        seen.append(document.ref.position)
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle):
        await wait_until(lambda: stream_is_empty(servers), description="the stream to be empty")
    assert sorted(seen) == [2, 3]
    assert await states(servers, job) == ["released", "released", "indexed", "indexed"]


async def test_a_bug_costs_an_attempt(servers: Servers) -> None:
    job = await accept_documents(servers, 2)
    await release_all(servers)

    async def broken(_document: Document) -> Outcome:
        raise ValueError("a bug")

    async with running_worker(servers, broken):
        await wait_until(
            lambda: states_are(servers, job, "queued"), description="both to be queued again"
        )
    assert await attempts(servers, job) == [1, 1]


async def test_while_a_dependency_is_unavailable_nothing_is_read_and_it_costs_nothing(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 40)
    await release_all(servers)
    is_available = False
    tried = asked = 0

    async def canary() -> None:
        nonlocal asked
        asked += 1
        if not is_available:
            raise DependencyError("tei", "refused")

    async def handle(_document: Document) -> Outcome:
        nonlocal tried
        tried += 1
        if not is_available:
            raise DependencyError("tei", "refused")
        return Done(ItemState.INDEXED)

    async with running_worker(
        servers, handle, canaries={"tei": canary}, stage_concurrency=2
    ) as worker:
        await wait_until(
            lambda: truth(worker.breakers.is_any_open), description="the breaker to open"
        )
        asked_before = asked
        await wait_until(lambda: truth(asked >= asked_before + 2), description="two more canaries")
        assert tried <= 12, "what was in flight, and no more"
        is_available = True
        dispatcher = make_dispatcher(servers)
        await dispatcher.check_marker()

        async def released_and_finished() -> object:
            await dispatcher.release_some()
            return await job_status(servers, job)

        await wait_until(released_and_finished, timeout=30, description="the job's end")
    assert await states(servers, job) == ["indexed"] * 40
    assert set(await attempts(servers, job)) == {0}


async def test_a_document_that_breaks_a_healthy_dependency_pays_and_is_dead_in_the_end(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 3)
    await release_all(servers)

    async def healthy() -> None:
        pass

    async def handle(document: Document) -> Outcome:
        if document.ref.position == 1:
            raise BreakingTextError("424 for this text only")
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle, canaries={"tei": healthy}, max_attempts=1):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert await states(servers, job) == ["indexed", "failed", "indexed"]
    assert await servers.pool.fetchval("SELECT code FROM webhook.dead_letters") == "tei_error"


async def test_a_dependency_that_finds_nearly_every_document_at_fault_is_at_fault(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 80)
    await release_all(servers)

    async def healthy() -> None:
        pass

    async def handle(_document: Document) -> Outcome:
        raise InputRejectedError("the texts are not to its taste")

    async with running_worker(
        servers, handle, canaries={"tei": healthy}, stage_concurrency=1
    ) as worker:
        await wait_until(lambda: stream_is_empty(servers), description="all to be looked at")
        assert not worker.breakers.is_any_open
        assert [wait.state for wait in worker.runner.waits] == ["failing"]
    found = await states(servers, job)
    assert (found.count("failed"), found.count("queued")) == (16, 64), "20 must have been seen"
    assert set(await attempts(servers, job)) == {0, 1}


async def test_documents_that_go_on_failing_alike_all_become_dead_letters_in_the_end(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 40)
    await release_all(servers)

    async def healthy() -> None:
        pass

    async def handle(_document: Document) -> Outcome:
        raise InputRejectedError("the texts are not to its taste")

    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()

    async def released_and_finished() -> object:
        await dispatcher.release_some()
        return await job_status(servers, job)

    rests = Rests(first=0.1, count=2)
    async with running_worker(servers, handle, canaries={"tei": healthy}, rests=rests):
        await wait_until(released_and_finished, timeout=60, description="the job's end")
    assert await states(servers, job) == ["failed"] * 40


@pytest.mark.parametrize(
    "fields", [{"h": b"\xff"}, {"h": b"{}"}, {"x": b"y"}, {"h": b'{"documents": 3}', "b": b"\xc1"}]
)
async def test_a_malformed_entry_is_kept_raw_and_stops_nobody(
    servers: Servers, fields: dict[str, bytes]
) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)
    await servers.redis.xadd(STREAM, fields)  # type: ignore[arg-type]
    async with running_worker(servers, done):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
        await wait_until(lambda: stream_is_empty(servers), description="the stream to be empty")
    dead_letter = await servers.pool.fetchrow("SELECT code, header, body FROM webhook.dead_letters")
    assert tuple(dead_letter) == ("malformed", fields.get("h"), fields.get("b", b""))


async def test_an_entry_of_a_newer_release_is_left_to_a_newer_worker(servers: Servers) -> None:
    for stage in StageName:
        await create_groups(servers.redis, stage)
    await servers.redis.xadd(STREAM, {"h": b'{"schema": 99, "documents": []}'})
    async with running_worker(servers, done):
        await wait_until(lambda: pending_count(servers), description="the entry to be seen")
        await looks_for_abandoned_entries(servers, 6)
    [row] = await pending(servers)
    assert row["times_delivered"] <= 1


async def test_a_drain_finishes_what_runs_and_deletes_the_consumer(servers: Servers) -> None:
    job = await accept_documents(servers, 3)
    await release_all(servers)

    draining = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        await draining.wait()
        return Done(ItemState.INDEXED)

    async def finish_when_draining(worker: Worker) -> None:
        await wait_until(lambda: truth(worker.slots._is_closed), description="the drain")
        draining.set()

    async with running_worker(servers, handle) as worker:
        await wait_until(lambda: pending_count(servers), description="the work to start")
        finishing = asyncio.create_task(finish_when_draining(worker))
    await finishing
    assert await states(servers, job) == ["indexed"] * 3
    consumers = await servers.redis.xinfo_consumers(STREAM, CHUNKER)
    assert consumers == []


async def test_a_drain_that_takes_too_long_gives_back_without_penalty(servers: Servers) -> None:
    job = await accept_documents(servers, 1)
    await release_all(servers)

    async def handle(_document: Document) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with running_worker(servers, handle, drain_timeout=0.2):
        await wait_until(lambda: pending_count(servers), description="the work to start")
    [row] = await pending(servers)
    assert row["times_delivered"] == 0

    async with running_worker(servers, done, consumer="w2"):
        await wait_until(lambda: job_status(servers, job), description="the job's end")


async def test_work_that_a_draining_stage_does_not_begin_is_given_back_at_once(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 3)
    await release_all(servers)
    tried = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        tried.set()
        raise DrainingError

    async with running_worker(servers, handle, max_deliveries=1):
        await asyncio.wait_for(tried.wait(), 10)
    assert [row["times_delivered"] for row in await pending(servers)] == [0]
    async with running_worker(servers, done, consumer="w2", max_deliveries=1):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert await states(servers, job) == ["indexed"] * 3


async def test_a_destroyed_group_is_made_again_and_its_work_is_released_again(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 8)
    await release_all(servers)
    async with running_worker(servers, done):
        await servers.redis.delete(STREAM)
        dispatcher = make_dispatcher(servers)

        async def released_and_finished() -> object:
            await dispatcher.check_marker()
            await dispatcher.release_some()
            return await job_status(servers, job)

        await wait_until(released_and_finished, description="the job's end")
    assert await states(servers, job) == ["indexed"] * 8


async def test_dead_consumers_go_but_never_one_that_holds_something(servers: Servers) -> None:
    job = await accept_documents(servers, 2)
    await release_all(servers)
    await servers.redis.xgroup_createconsumer(STREAM, CHUNKER, "dead-and-empty")
    await servers.redis.xreadgroup(CHUNKER, "dead-with-work", {STREAM: ">"}, count=1)
    janitor = Janitor(servers.redis, Consumer(stage=CHUNKER, name="w1", lease=0.0))

    async def tidied() -> bool:
        return await janitor.tidy() > 0

    await wait_until(tidied, description="the empty consumer to be deleted")
    consumers = await servers.redis.xinfo_consumers(STREAM, CHUNKER)
    assert [consumer["name"] for consumer in consumers] == [b"dead-with-work"]
    async with running_worker(servers, done):
        await wait_until(lambda: job_status(servers, job), description="the job's end")


async def test_while_redis_takes_no_writes_what_is_done_waits_for_its_hand_over(
    servers: Servers,
) -> None:
    job = await accept_documents(servers, 3)
    await release_all(servers)
    is_read_only = asyncio.Event()

    async def handle(_document: Document) -> Outcome:
        await replicate(servers, "127.0.0.1", "1")  # as after a failover
        is_read_only.set()
        return Emit({}, 1)

    try:
        async with running_worker(servers, handle) as worker:
            tries = count_tries(worker.handover)
            await is_read_only.wait()
            [entry] = worker.leases.held
            await wait_until(lambda: len(tries) >= 3, description="three tries of the hand-over")
            assert worker.leases.held == [entry]
            await replicate(servers, "NO", "ONE")
            await wait_until(lambda: depth_is(servers, EMBEDDER, 1), description="the hand-over")
    finally:
        await replicate(servers, "NO", "ONE")
    assert await states(servers, job) == ["released"] * 3


async def test_an_error_text_that_postgres_cannot_store_fails_nobody_else(servers: Servers) -> None:
    job = await accept_documents(servers, 2)
    await release_all(servers)

    async def handle(document: Document) -> Outcome:
        if document.ref.position == 0:
            raise RejectedError("bad", "a NUL \x00 and half a pair \ud83d")
        return Done(ItemState.INDEXED)

    async with running_worker(servers, handle):
        await wait_until(lambda: job_status(servers, job), description="the job's end")
    assert await states(servers, job) == ["failed", "indexed"]


async def depth_is(servers: Servers, stage: StageName, entries: int) -> bool:
    return await depth(servers, stage) >= entries and await stream_is_empty(servers)


async def stream_is_empty(servers: Servers) -> bool:
    return int(await servers.redis.xlen(STREAM)) == 0


async def pending_count(servers: Servers, stream: str = STREAM) -> int:
    return len(await pending(servers, stream))


async def replicate(servers: Servers, host: str, port: str) -> None:
    """By a client of its own: at each refusal the worker closes idle connections of the shared."""
    async with redis_command(servers.redis_url) as redis:
        await redis.execute_command("REPLICAOF", host, port)  # type: ignore[no-untyped-call]


async def looks_for_abandoned_entries(servers: Servers, count: int) -> None:
    """Wait until workers have looked so many more times; each look is at one lane."""

    async def calls() -> int:
        stats = await servers.redis.info("commandstats")
        return int(stats.get("cmdstat_xautoclaim", {}).get("calls", 0))

    before = await calls()

    async def enough() -> bool:
        return await calls() >= before + count

    await wait_until(enough, description=f"{count} looks for abandoned entries")


def count_tries(handover: HandOver) -> list[Any]:
    """Note every call of its script from now on."""
    tries: list[Any] = []
    run = handover._script

    async def noted(**arguments: Any) -> Any:
        tries.append(arguments)
        return await run(**arguments)

    handover._script = noted  # type: ignore[assignment]
    return tries


async def truth(value: object) -> object:
    return value


async def states_are(servers: Servers, job_id: str, state: str) -> bool:
    return set(await states(servers, job_id)) == {state}


async def attempts(servers: Servers, job_id: str) -> list[int]:
    rows = await servers.pool.fetch(
        "SELECT attempts FROM webhook.job_items WHERE job_id = $1 ORDER BY position", job_id
    )
    return [row["attempts"] for row in rows]
