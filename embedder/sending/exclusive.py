"""Many requests in flight at once, or one exclusive request: if TEI breaks on that one, its text is
at fault.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ExclusiveRequests:
    """A shared and exclusive lock, held for each request to one TEI."""

    def __init__(self) -> None:
        self._entrance = asyncio.Lock()  # an exclusive request keeps it
        self._in_flight = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @asynccontextmanager
    async def hold(self, *, alone: bool) -> AsyncIterator[None]:
        """Inside the block one request may be in flight; with `alone`, no other one is."""
        async with self._entrance:
            if alone:
                await self._is_empty.wait()
                yield
                return
            self._in_flight += 1
            self._is_empty.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_empty.set()
