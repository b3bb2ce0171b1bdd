"""Waiting in tests: for a condition with a deadline, never for a time."""

import asyncio
from collections.abc import Callable


async def wait_until(predicate: Callable[[], object], *, timeout: float = 5.0, description: str) -> None:
    """Return as soon as `predicate()` is true; fail with `description` after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not predicate():
        if loop.time() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {description}")
        await asyncio.sleep(0.002)
