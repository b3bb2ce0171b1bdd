"""An event loop in a thread, for the parts that must respond while the harness is busy.

These are the proxies and the TEI stand-in.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """A context manager; `run` runs a coroutine to its end in that loop, and blocks until then."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="torture-background", daemon=True
        )
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Its result or its exception."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
