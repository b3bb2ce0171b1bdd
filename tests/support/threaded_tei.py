"""A TEI stand-in beside a test that has no event loop of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from shared.tei.client import CANARY
from tests.support.tei_stand_in import StandInSettings, TeiStandIn


class ThreadedTei:
    """A stand-in that is served by a thread."""

    def __init__(self, stand_in: TeiStandIn, loop: asyncio.AbstractEventLoop) -> None:
        self._stand_in = stand_in
        self._loop = loop

    @property
    def url(self) -> str:
        return self._stand_in.url

    @property
    def in_flight(self) -> int:
        """Requests to /embed that were read and not answered."""
        return self._stand_in.in_flight

    @property
    def texts(self) -> list[str]:
        """Every text that it was asked for."""
        return [text for batch in list(self._stand_in.batches) for text in batch]

    def hold(self) -> None:
        """Keep requests in flight until `release`, except the canary: the server is only slow."""
        self._call(lambda: self._stand_in.hold(CANARY))

    def release(self) -> None:
        self._call(self._stand_in.release)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)


@contextlib.contextmanager
def threaded_tei(dimension: int, model_id: str = "stand-in") -> Iterator[ThreadedTei]:
    """Serve a model of this dimension on a free port until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tei stand-in", daemon=True)
    thread.start()
    stand_in = TeiStandIn(StandInSettings(dimension=dimension, model_id=model_id))
    asyncio.run_coroutine_threadsafe(stand_in.start(), loop).result(10)
    try:
        yield ThreadedTei(stand_in, loop)
    finally:
        asyncio.run_coroutine_threadsafe(stand_in.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
