"""Carries one request to TEI and finds out which of its texts is at fault when it fails.

TEI refuses a text: then the request is split until the text is alone. Or TEI breaks on the request:
it fails, crashes, or answers vectors that are no numbers. That may be caused by one of the texts or
by TEI itself. A text counts as the cause only if its request was the only one in flight and TEI is
healthy again; `quarantine` brings it to that point, also over several restarts of TEI.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import msgspec

from embedder.sending.exclusive import ExclusiveRequests
from embedder.sending.packing import TextInput, middle
from embedder.sending.quarantine import Quarantine
from embedder.sending.silence import SilenceLimit
from shared.service.errors import DependencyError, MillstreamError
from shared.tei.client import (
    Backoff,
    BreakingTextError,
    Embedded,
    InputRejectedError,
    ServerTiming,
    TeiBackendError,
    TeiBreakdownError,
    TeiOverloadedError,
    Vectors,
)


class Embeds(Protocol):
    """What embeds: a TeiClient, or anything that raises the same errors."""

    async def embed_timed(self, texts: Sequence[str], dimension: int | None = None) -> Embedded: ...

    async def probe(self) -> int: ...

    async def health(self) -> None: ...


# Entered while a request with these texts is in flight: not while they wait for their turn.
InFlight = Callable[[Sequence[TextInput]], AbstractContextManager[None]]


def not_noted(_: Sequence[TextInput]) -> AbstractContextManager[None]:
    """An InFlight that does nothing."""
    return nullcontext()


class EmbeddingCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request that TEI answered or failed to answer, for metrics and for the window."""

    inputs: int
    tokens: int
    duration_s: float
    error: MillstreamError | None = None  # None: success
    timing: ServerTiming | None = None


class SendingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent. Several servers of one model share them, and so the texts in
    quarantine.
    """

    dimension: int
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    quarantine: Quarantine = msgspec.field(default_factory=Quarantine)
    # Without a sign of life of the server, after which its requests are ended.
    silence_s: float = 30.0


class IsolatingEmbedder:
    """Embeds texts with retries, and splits a failing request until the text at fault is alone."""

    def __init__(
        self,
        client: Embeds,
        rules: SendingRules,
        *,
        observe: Callable[[EmbeddingCall], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`observe` is called once for each request that ended, cancelled ones apart; it must not
        raise.
        """
        self._client = client
        self._dimension = rules.dimension
        self._backoff = rules.backoff
        self._quarantine = rules.quarantine
        self._observe = observe
        self._clock = clock
        self._requests = ExclusiveRequests()
        self.silence = SilenceLimit(rules.silence_s, client.health)

    async def embed(
        self, inputs: Sequence[TextInput], in_flight: InFlight = not_noted
    ) -> list[Vectors | MillstreamError]:
        """Return for each text, in order, its vector (`float32[dimension]`) or the error that is
        its own.

        DependencyError leaves it when TEI is at fault: then nothing is known about any of the
        texts. One request is in flight at a time; `in_flight` is entered for each.
        """
        outcomes: dict[int, Vectors | MillstreamError] = {}
        for group in self._quarantine.groups([text.text for text in inputs]):
            embedded = await self._embed_group([inputs[index] for index in group], in_flight)
            outcomes.update(zip(group, embedded, strict=True))
        return [outcomes[index] for index in range(len(inputs))]

    async def _embed_group(
        self, inputs: Sequence[TextInput], in_flight: InFlight
    ) -> list[Vectors | MillstreamError]:
        texts = [text.text for text in inputs]
        is_alone = self._quarantine.is_single(texts)
        try:
            vectors = await self._backoff.run(lambda: self._send(inputs, in_flight, alone=is_alone))
        except InputRejectedError as error:
            if len(inputs) == 1:
                return [error]
            cut = middle(inputs)
            return [
                *await self._embed_group(inputs[:cut], in_flight),
                *await self._embed_group(inputs[cut:], in_flight),
            ]
        except (TeiBackendError, TeiBreakdownError) as error:
            self._quarantine.broke(texts, alone=is_alone)
            # The texts are sent in smaller groups when they come again.
            await self._raise_if_unavailable(error)
            if not is_alone:
                return await self.embed(inputs, in_flight)
            self._quarantine.reported(texts[0])
            return [BreakingTextError(error.reason)]
        self._quarantine.passed(texts)
        return list(vectors)

    async def _raise_if_unavailable(self, error: MillstreamError) -> None:
        try:
            await self._client.probe()
        except DependencyError as unavailable:
            raise error from unavailable

    async def _send(
        self, inputs: Sequence[TextInput], in_flight: InFlight, *, alone: bool
    ) -> Vectors:
        if alone and self._quarantine.is_confirmed(inputs[0].text):
            raise TeiBreakdownError("TEI broke on this text alone and was unavailable afterwards")
        async with self._requests.hold(alone=alone):
            started = self._clock()
            try:
                async with self.silence.watched():
                    texts = [text.text for text in inputs]
                    with in_flight(inputs):
                        embedded = await self._client.embed_timed(texts, self._dimension)
            except MillstreamError as error:
                if isinstance(error, InputRejectedError | TeiOverloadedError):
                    self.silence.heard()
                self._report(inputs, started, error)
                raise
            self.silence.heard()
            self._report(inputs, started, None, embedded.timing)
            return embedded.vectors

    def _report(
        self,
        inputs: Sequence[TextInput],
        started: float,
        error: MillstreamError | None,
        timing: ServerTiming | None = None,
    ) -> None:
        self._observe(
            EmbeddingCall(
                inputs=len(inputs),
                tokens=sum(text.tokens for text in inputs),
                duration_s=self._clock() - started,
                error=error,
                timing=timing,
            )
        )
