"""Carries one packed request to TEI and finds out which of its texts is at fault."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from embedder.packing import TextInput, middle
from shared.errors import MillstreamError
from shared.tei import Backoff, InputRejectedError, TeiBackendError, Vectors


class Embeds(Protocol):
    """What embeds: a TeiClient, or anything that raises the same errors."""

    async def embed(self, texts: Sequence[str], dimension: int | None = None) -> Vectors: ...

    async def probe(self) -> int: ...


class EmbeddingCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request that TEI answered or failed to answer, for metrics and for the limiter."""

    inputs: int
    tokens: int
    duration_s: float
    error: MillstreamError | None = None  # None: success


class IsolatingEmbedder:
    """Embeds texts with retries, and splits a request that fails until the text at fault is alone."""

    def __init__(
        self,
        client: Embeds,
        dimension: int,
        *,
        observe: Callable[[EmbeddingCall], None],
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`observe` is called once for each request that ended, cancelled ones apart; it must not raise."""
        self.dimension = dimension
        self._client = client
        self._observe = observe
        self._backoff = backoff or Backoff()
        self._clock = clock

    async def embed(self, inputs: Sequence[TextInput]) -> list[Vectors | MillstreamError]:
        """Return for each text, in order, its vector (`float32[dimension]`) or the error that is its own.

        DependencyError leaves it when TEI is at fault: then nothing is known about any of the texts.
        One request is in flight at a time.
        """
        try:
            return list(await self._backoff.run(lambda: self._send(inputs)))
        except InputRejectedError as error:
            fault: MillstreamError = error
        except TeiBackendError as error:
            await self._client.probe()  # raises if TEI fails on anything; else one of these texts breaks it
            fault = error
        if len(inputs) == 1:
            return [fault]
        cut = middle(inputs)
        return await self.embed(inputs[:cut]) + await self.embed(inputs[cut:])

    async def _send(self, inputs: Sequence[TextInput]) -> Vectors:
        started = self._clock()
        try:
            vectors = await self._client.embed([text.text for text in inputs], self.dimension)
        except MillstreamError as error:
            self._report(inputs, started, error)
            raise
        self._report(inputs, started, None)
        return vectors

    def _report(self, inputs: Sequence[TextInput], started: float, error: MillstreamError | None) -> None:
        tokens = sum(text.tokens for text in inputs)
        duration_s = self._clock() - started
        self._observe(EmbeddingCall(inputs=len(inputs), tokens=tokens, duration_s=duration_s, error=error))
