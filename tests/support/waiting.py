"""Waiting in tests: for a condition with a deadline, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

_POLL_INTERVAL = 0.005  # seconds

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], object], *, timeout: float = 15.0, description: str
) -> Any:
    """Return the first true value of `condition()`, of which an awaitable is awaited.

    Fails with `description` after `timeout` seconds.
    """
    value = await _last_value(condition, timeout, _POLL_INTERVAL)
    if not value:
        _fail(timeout, description)
    return value


async def becomes_true(
    condition: Callable[[], object], *, timeout: float, every: float = _POLL_INTERVAL
) -> bool:
    """Whether `wait_until` would return: for what is counted as a problem and does not end a run.

    `every` is the seconds between two looks, for those that cost a server something.
    """
    return bool(await _last_value(condition, timeout, every))


def block_until(condition: Callable[[], T], *, timeout: float = 15.0, description: str) -> T:
    """`wait_until` for tests without an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            _fail(timeout, description)
        time.sleep(_POLL_INTERVAL)
    return value


async def _last_value(condition: Callable[[], object], timeout: float, every: float) -> object:
    """The first true value of the condition, or a false one after the time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value or time.monotonic() > deadline:
            return value
        await asyncio.sleep(every)


def _fail(timeout: float, description: str) -> NoReturn:
    raise AssertionError(f"not within {timeout:g} s: {description}")
