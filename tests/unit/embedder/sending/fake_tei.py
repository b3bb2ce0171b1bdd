"""TEI without the network: embeds by `vector_of`, fails on texts or always, and can be held."""

import asyncio
from collections.abc import Sequence

from shared.service.errors import DependencyError
from shared.tei.client import (
    Embedded,
    InputRejectedError,
    TeiBackendError,
    TeiBreakdownError,
    TeiOverloadedError,
    Vectors,
)
from tests.support.tei_stand_in import vectors_of

DIMENSION = 4


class FakeTei:
    """Refuses texts that hold `bad`, fails (424) on texts that hold `poison`, crashes on texts that
    hold `crash`.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.error: Exception | None = None  # raised instead of every answer
        self.overloads = 0  # so many requests are answered by 429 first
        self.crashes = 0
        self.stays_down = False  # after a crash, until `restart`
        self.gate = asyncio.Event()
        self.gate.set()
        self.in_flight: list[int] = []  # inputs of each request in flight
        self.peak_inputs = 0
        self.peak_requests = 0
        self.cancelled = 0

    async def probe(self) -> int:
        await self.embed(["canary"], DIMENSION)
        return DIMENSION

    async def health(self) -> None:
        if isinstance(self.error, DependencyError):
            raise self.error

    async def embed_timed(self, texts: Sequence[str], dimension: int | None = None) -> Embedded:
        return Embedded(await self.embed(texts, dimension))

    async def embed(self, texts: Sequence[str], dimension: int | None = None) -> Vectors:
        assert dimension == DIMENSION
        self.batches.append(list(texts))
        self.in_flight.append(len(texts))
        self.peak_inputs = max(self.peak_inputs, sum(self.in_flight))
        self.peak_requests = max(self.peak_requests, len(self.in_flight))
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight.remove(len(texts))
        return self._answer(texts)

    def _answer(self, texts: Sequence[str]) -> Vectors:
        if self.error:
            raise self.error
        if self.overloads:
            self.overloads -= 1
            raise TeiOverloadedError("HTTP 429")
        if any("crash" in text for text in texts):
            self.crash()
        if any("poison" in text for text in texts):
            raise TeiBackendError("HTTP 424")
        if bad := [text for text in texts if "bad" in text]:
            raise InputRejectedError(f"refused: {bad[0]}")
        return vectors_of(list(texts), DIMENSION)

    def crash(self) -> None:
        self.crashes += 1
        if self.stays_down:
            self.go_down()
        raise TeiBreakdownError("connection reset")

    def restart(self) -> None:
        self.error = None

    def go_down(self) -> None:
        self.error = DependencyError("tei", "refused")
