"""Many requests under way at once, or one alone: what breaks then was broken by that one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Crossing:
    """Taken for each request to one TEI."""

    def __init__(self) -> None:
        self._entrance = asyncio.Lock()  # who must be alone keeps it shut
        self._under_way = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @asynccontextmanager
    async def taken(self, *, alone: bool) -> AsyncIterator[None]:
        """Inside the block a request may be under way; with `alone`, no other one is."""
        async with self._entrance:
            if alone:
                await self._is_empty.wait()
                yield
                return
            self._under_way += 1
            self._is_empty.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_empty.set()
