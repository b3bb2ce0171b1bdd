"""Waiting in tests: for a condition with a deadline, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

_POLL_INTERVAL = 0.005  # seconds

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], object], *, timeout: float = 15.0, description: str
) -> Any:
    """Return the first true value of `condition()`, of which an awaitable is awaited.

    Fails with `description` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        _check(deadline, timeout, description)
        await asyncio.sleep(_POLL_INTERVAL)


def block_until(condition: Callable[[], T], *, timeout: float = 15.0, description: str) -> T:
    """`wait_until` for tests without an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        _check(deadline, timeout, description)
        time.sleep(_POLL_INTERVAL)
    return value


def _check(deadline: float, timeout: float, description: str) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {timeout:g} s: {description}")
