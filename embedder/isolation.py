"""Carries one packed request to TEI and finds out which of its texts is at fault.

TEI refuses a text (then the request is split until the text is alone), or breaks on it: fails, crashes, answers no
numbers. That may be a text's fault or TEI's own trouble. A text is blamed for it only if it was the only one under way
and TEI is well again; `suspicion` gets it there, also over several restarts of TEI.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from embedder.crossing import Crossing
from embedder.packing import TextInput, middle
from embedder.suspicion import Suspicion
from shared.service.errors import DependencyError, MillstreamError
from shared.tei.client import (
    Backoff,
    BreakingTextError,
    InputRejectedError,
    TeiBackendError,
    TeiBreakdownError,
    Vectors,
)


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


class Practice(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent; several servers of one model have it in common, so that all know whom to suspect."""

    dimension: int
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    suspicion: Suspicion = msgspec.field(default_factory=Suspicion)


class IsolatingEmbedder:
    """Embeds texts with retries, and splits a request that fails until the text at fault is alone."""

    def __init__(
        self,
        client: Embeds,
        practice: Practice,
        *,
        observe: Callable[[EmbeddingCall], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`observe` is called once for each request that ended, cancelled ones apart; it must not raise."""
        self._client = client
        self._dimension = practice.dimension
        self._backoff = practice.backoff
        self._suspicion = practice.suspicion
        self._observe = observe
        self._clock = clock
        self._crossing = Crossing()

    async def embed(self, inputs: Sequence[TextInput]) -> list[Vectors | MillstreamError]:
        """Return for each text, in order, its vector (`float32[dimension]`) or the error that is its own.

        DependencyError leaves it when TEI is at fault: then nothing is known about any of the texts.
        One request is in flight at a time.
        """
        outcomes: dict[int, Vectors | MillstreamError] = {}
        for group in self._suspicion.groups([text.text for text in inputs]):
            outcomes.update(zip(group, await self._embed_group([inputs[index] for index in group]), strict=True))
        return [outcomes[index] for index in range(len(inputs))]

    async def _embed_group(self, inputs: Sequence[TextInput]) -> list[Vectors | MillstreamError]:
        texts = [text.text for text in inputs]
        is_alone = self._suspicion.is_to_be_alone(texts)
        try:
            vectors = await self._backoff.run(lambda: self._send(inputs, alone=is_alone))
        except InputRejectedError as error:
            if len(inputs) == 1:
                return [error]
            cut = middle(inputs)
            return await self._embed_group(inputs[:cut]) + await self._embed_group(inputs[cut:])
        except (TeiBackendError, TeiBreakdownError) as error:
            self._suspicion.broke(texts, alone=is_alone)
            await self._raise_if_away(error)  # the texts are sent apart when they come again
            if not is_alone:
                return await self.embed(inputs)
            self._suspicion.told(texts[0])
            return [BreakingTextError(error.reason)]
        self._suspicion.passed(texts)
        return list(vectors)

    async def _raise_if_away(self, error: MillstreamError) -> None:
        try:
            await self._client.probe()
        except DependencyError as away:
            raise error from away

    async def _send(self, inputs: Sequence[TextInput], *, alone: bool) -> Vectors:
        if alone and self._suspicion.is_proved(inputs[0].text):
            raise TeiBreakdownError("it broke on this text alone, and was away when that was to be judged")
        async with self._crossing.taken(alone=alone):
            started = self._clock()
            try:
                vectors = await self._client.embed([text.text for text in inputs], self._dimension)
            except MillstreamError as error:
                self._report(inputs, started, error)
                raise
            self._report(inputs, started, None)
            return vectors

    def _report(self, inputs: Sequence[TextInput], started: float, error: MillstreamError | None) -> None:
        tokens = sum(text.tokens for text in inputs)
        duration_s = self._clock() - started
        self._observe(EmbeddingCall(inputs=len(inputs), tokens=tokens, duration_s=duration_s, error=error))
