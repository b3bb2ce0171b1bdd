"""Concurrent work on one batch: order, isolation, limit, time."""

import asyncio

import pytest

from shared.runtime.batch import BatchWorker
from shared.service.errors import DrainingError


def failure_text(_document: str, error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


async def test_results_come_in_input_order_whichever_is_done_first() -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def handle(document: str) -> str:
        await gates[document].wait()
        return document.upper()

    running = asyncio.create_task(
        BatchWorker(handle, 3, on_error=failure_text).process_batch(["a", "b", "c"])
    )
    for name in "cba":
        gates[name].set()
        await asyncio.sleep(0)
    assert await running == ["A", "B", "C"]


async def test_one_failure_stops_no_other() -> None:
    async def handle(document: str) -> str:
        if document == "bad":
            raise ValueError("boom")
        return document

    worker = BatchWorker(handle, 2, on_error=failure_text)
    assert await worker.process_batch(["a", "bad", "b"]) == ["a", "ValueError: boom", "b"]


async def test_no_more_than_limit_run_at_once() -> None:
    running = highest = 0

    async def handle(_document: int) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0)
        running -= 1

    await BatchWorker(handle, 4, on_error=lambda _document, _error: None).process_batch(range(40))
    assert highest == 4


async def test_a_document_over_its_time_fails_alone() -> None:
    async def handle(document: str) -> str:
        if document == "slow":
            await asyncio.Event().wait()
        return document

    worker = BatchWorker(handle, 2, on_error=failure_text, timeout=0.01)
    assert await worker.process_batch(["slow", "fast"]) == ["TimeoutError: ", "fast"]


async def test_cancellation_is_not_taken_for_a_failure() -> None:
    async def handle(_document: str) -> str:
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(BatchWorker(handle, 1, on_error=failure_text).process_batch(["a"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_scripts_need_no_event_loop() -> None:
    async def handle(document: int) -> int:
        return document * 2

    worker = BatchWorker(handle, 2, on_error=lambda _document, _error: -1)
    assert worker.process_batch_sync([1, 2, 3]) == [2, 4, 6]


async def test_a_batch_that_is_not_begun_while_draining_is_given_back_whole() -> None:
    async def handle(document: str) -> str:
        if document == "waiting":
            raise DrainingError
        await asyncio.Event().wait()
        return document

    with pytest.raises(DrainingError):
        await BatchWorker(handle, 2, on_error=failure_text).process_batch(["in flight", "waiting"])
