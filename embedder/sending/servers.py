"""The TEI servers of an embedder: which one gets the next request, and which are left out while
they are unavailable.

Each has permits, a window and a breaker of its own. A request goes to the least loaded server that
has room; if that server turns out to be unavailable, the request is sent to another one. Only if
all are unavailable is TEI unavailable.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import msgspec

from embedder.sending.isolation import (
    EmbeddingCall,
    Embeds,
    InFlight,
    IsolatingEmbedder,
    SendingRules,
    not_noted,
)
from embedder.sending.limiter import Admission, Limiter, Permits
from embedder.sending.packing import Capacity, RequestLimits, TextInput
from embedder.sending.window import Answer, Window
from shared.pipeline.lanes import Lane
from shared.runtime.faults.breaker import Breaker, Pauses
from shared.service.errors import DependencyError, MillstreamError
from shared.service.metrics import Metrics
from shared.tei.client import TeiBackendError, TeiBreakdownError, TeiOverloadedError, Vectors
from shared.tei.servers import first_success

_FIRST_HANDSHAKE_S = 10.0  # a frozen server must not keep the others from starting
_PAUSE_JITTER = (0.8, 1.2)  # embedders that pause must not send in step

Handshake = Callable[[], Awaitable[Capacity]]


class InFlightWindow(Protocol):
    """What says how much may be in flight at a server: a Window, or a fixed one in tests."""

    @property
    def inputs(self) -> int: ...
    @property
    def request_inputs(self) -> int: ...
    @property
    def pause_s(self) -> float: ...

    def answered(self, answer: Answer) -> None: ...
    def refused(self, now: float, duration_s: float) -> None: ...
    def failed(self, now: float, duration_s: float) -> None: ...


def window_of(capacity: Capacity) -> InFlightWindow:
    """A window for a server of this capacity, before anything else is known of it."""
    return Window(
        largest_request=capacity.request.max_inputs,
        ceiling=capacity.window_ceiling,
        batch_inputs=capacity.batch_inputs,
    )


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What all servers of an embedder share."""

    rules: SendingRules
    metrics: Metrics
    # Called once for each request that ended; must not raise.
    observe: Callable[[EmbeddingCall], None]
    pauses: Pauses = Pauses()
    window_of: Callable[[Capacity], InFlightWindow] = window_of
    jitter: Callable[[float, float], float] = random.uniform


class Server:
    """One TEI server as this process sees it. Nothing is sent to it before the first handshake."""

    def __init__(self, name: str, client: Embeds, handshake: Handshake, shared: Shared) -> None:
        """`handshake` asks what the server can take, and raises if it is unavailable or serves
        another model.
        """
        self.permits = Permits(limit=1, requests=1, request_inputs=1)
        self.breaker = Breaker(
            f"tei {name}", self._canary, shared.metrics, self._open_or_close, shared.pauses
        )
        self.embedder = IsolatingEmbedder(client, shared.rules, observe=self._observe)
        self._handshake = handshake
        self._shared = shared
        self._inputs = shared.metrics.tei.inputs
        self._capacity: Capacity | None = None
        self._window: InFlightWindow = Window(largest_request=1, ceiling=1)
        shared.metrics.tei.input_limit.labels(name).set_function(lambda: self.permits.limit)
        shared.metrics.tei.inputs_in_flight.labels(name).set_function(lambda: self.permits.in_use)

    @property
    def request_limits(self) -> RequestLimits | None:
        """What a request to it may hold now; None before the first handshake."""
        if self._capacity is None:
            return None
        return msgspec.structs.replace(
            self._capacity.request, max_inputs=self.permits.request_inputs
        )

    async def shake_hands(self) -> None:
        """Ask what it can take. A server that changed starts with a new window."""
        capacity = await self._handshake()
        if capacity == self._capacity:
            return
        self._capacity = capacity
        self._window = self._shared.window_of(capacity)
        self.permits.requests_limit = capacity.requests_in_flight
        self._apply_window()

    async def _canary(self) -> None:
        """Return if it is available. A busy server may answer other requests before this one: that
        is enough.
        """
        handshake = asyncio.create_task(self.shake_hands())
        heard = asyncio.create_task(self.embedder.silence.wait_heard())
        try:
            await asyncio.wait({handshake, heard}, return_when=asyncio.FIRST_COMPLETED)
            if handshake.done():
                handshake.result()
        finally:
            handshake.cancel()
            heard.cancel()

    def _open_or_close(self) -> None:
        self.permits.is_open = not self.breaker.is_open

    def _observe(self, call: EmbeddingCall) -> None:
        outcome = "failed" if call.error else "embedded"
        if call.error is None:
            self._window.answered(
                Answer(
                    inputs=call.inputs,
                    tokens=call.tokens,
                    duration_s=call.duration_s,
                    in_flight=self.permits.in_use,
                    timing=call.timing,
                )
            )
        elif isinstance(call.error, TeiOverloadedError):
            outcome = "overloaded"
            self._window.refused(time.monotonic(), call.duration_s)
        elif isinstance(call.error, DependencyError) and not isinstance(
            call.error, TeiBackendError
        ):
            self._window.failed(time.monotonic(), call.duration_s)
        self._apply_window()
        self._inputs.labels(outcome).inc(call.inputs)
        self._shared.observe(call)

    def _apply_window(self) -> None:
        self.permits.request_inputs = self._window.request_inputs
        self.permits.pause_s = self._window.pause_s * self._shared.jitter(*_PAUSE_JITTER)
        self.permits.limit = self._window.inputs


class Servers:
    """All TEI servers; an async context manager that asks unavailable ones until they are available
    again.
    """

    def __init__(self, servers: Sequence[Server], dimension: int) -> None:
        """`dimension` of their vectors."""
        self.dimension = dimension
        self._by_permits = {server.permits: server for server in servers}
        self._limiter = Limiter(list(self._by_permits))
        self._recovering: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Ask all servers what they can take.

        Raises ConfigurationError for one that does not fit, DependencyError if none is available.
        """
        servers = list(self._by_permits.values())
        handshakes = (_first_handshake(server) for server in servers)
        answers = await asyncio.gather(*handshakes, return_exceptions=True)
        faults = [answer for answer in answers if isinstance(answer, BaseException)]
        for fault in faults:
            if not isinstance(fault, DependencyError) or len(faults) == len(servers):
                raise fault
        for server, answer in zip(servers, answers, strict=True):
            if isinstance(answer, DependencyError):
                server.breaker.open(answer)
        self._recovering = [
            asyncio.create_task(server.breaker.recover(), name="tei-breaker") for server in servers
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._recovering:
            task.cancel()
        await asyncio.wait(self._recovering)

    @property
    def permits(self) -> list[Permits]:
        """What is in flight at each server."""
        return list(self._by_permits)

    @property
    def largest_request(self) -> int:
        """The most inputs that a request to any server may hold now."""
        return max(permits.request_inputs for permits in self._by_permits)

    async def admit(self, weight: int, lane: Lane) -> tuple[Admission, RequestLimits]:
        """Wait until a server has room for a request of up to so many inputs, and return what it
        may hold.

        Raises DependencyError as soon as all servers are unavailable.
        """
        admission = await self._limiter.acquire(weight, lane)
        limits = self._by_permits[admission.permits].request_limits
        assert limits is not None, "a server is admitted after its handshake"
        return admission, msgspec.structs.replace(limits, max_inputs=admission.weight)

    async def embed(
        self,
        admission: Admission,
        inputs: Sequence[TextInput],
        in_flight: InFlight = not_noted,
    ) -> list[Vectors | MillstreamError]:
        """Send an admitted request; the admission is used up.

        Returns for each text, in order, its vector (`float32[dimension]`) or its error. Raises
        DependencyError if no server did its part.
        """
        tried: set[Permits] = set()
        outcomes: list[Vectors | MillstreamError] = []
        while True:
            # Another server may take less in one request than the first.
            part = inputs[len(outcomes) : len(outcomes) + admission.weight]
            try:
                outcomes += await self._by_permits[admission.permits].embedder.embed(
                    part, in_flight
                )
            except DependencyError as error:
                tried.add(admission.permits)
                if not await self._may_go_elsewhere(admission.permits, error):
                    raise
            finally:
                admission.release()
            if len(outcomes) == len(inputs):
                return outcomes
            admission = await self._limiter.acquire(len(inputs) - len(outcomes), admission.lane)
            if admission.permits in tried:  # it has recovered in between, and may fail again
                admission.release()
                raise DependencyError(
                    "tei", "servers are flapping: the request failed on each of them"
                )

    async def probe(self) -> None:
        """Return if at least one server is available: the canary of all. Recovered ones are used
        again.
        """

        async def ask(server: Server) -> None:
            if not await server.breaker.is_well():
                raise DependencyError("tei", "no server is available")

        await first_success([partial(ask, server) for server in self._by_permits.values()])

    async def is_unavailable(self) -> bool:
        """Ask all servers after a request failed; whether none of them is available."""
        answers = (server.breaker.is_unavailable() for server in self._by_permits.values())
        return all(await asyncio.gather(*answers))

    async def _may_go_elsewhere(self, permits: Permits, error: DependencyError) -> bool:
        is_unavailable = await self._by_permits[permits].breaker.is_unavailable()
        # A text of this request may have brought the server down: it must not go through all of
        # them.
        return is_unavailable and not isinstance(error, TeiBackendError | TeiBreakdownError)


async def _first_handshake(server: Server) -> None:
    try:
        async with asyncio.timeout(_FIRST_HANDSHAKE_S):
            await server.shake_hands()
    except TimeoutError as error:
        raise DependencyError("tei", f"no answer within {_FIRST_HANDSHAKE_S:g} s") from error
