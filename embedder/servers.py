"""The TEI servers of an embedder: which one gets the next request, and which are left out until they are well again.

Each has permits, an adaptive limit and a breaker of its own. A request goes to the least loaded server that has room;
one that fails because its server is away is carried to another. Only if all are away is TEI away.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from embedder.concurrency import AdaptiveLimit, Observation
from embedder.isolation import EmbeddingCall, Embeds, IsolatingEmbedder, Practice
from embedder.limiter import Admission, Limiter, Permits
from embedder.packing import Capacity, RequestLimits, TextInput
from shared.pipeline.lanes import Lane
from shared.runtime.faults.breaker import Breaker, Pauses
from shared.service.errors import DependencyError, MillstreamError
from shared.service.metrics import Metrics
from shared.tei.client import TeiBackendError, TeiBreakdownError, TeiOverloadedError, Vectors
from shared.tei.servers import first_success

_FIRST_MEETING_S = 10.0  # a frozen server must not keep the others from starting

Introduce = Callable[[], Awaitable[Capacity]]


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What all servers of an embedder have in common."""

    practice: Practice
    metrics: Metrics
    observe: Callable[[EmbeddingCall], None]  # called once for each request that ended; must not raise
    pauses: Pauses = Pauses()


class Server:
    """One TEI server as this process sees it. Nothing is sent to it before it was met."""

    def __init__(self, name: str, client: Embeds, introduce: Introduce, common: Common) -> None:
        """`introduce` asks what the server can take, and raises if it is not well or not the model that is wanted."""
        self.permits = Permits(limit=1, requests=1)
        self.breaker = Breaker(f"tei {name}", self.meet, common.metrics, self._open_or_close, common.pauses)
        self.embedder = IsolatingEmbedder(client, common.practice, observe=self._observe)
        self._introduce = introduce
        self._report = common.observe
        self._inputs = common.metrics.tei.inputs
        self._capacity: Capacity | None = None
        self._limit = AdaptiveLimit(request=1, ceiling=1)
        common.metrics.tei.input_limit.labels(name).set_function(lambda: self.permits.limit)
        common.metrics.tei.inputs_in_flight.labels(name).set_function(lambda: self.permits.in_use)

    @property
    def request_limits(self) -> RequestLimits | None:
        """What a request to it may hold; None before it was met."""
        return self._capacity.request if self._capacity else None

    async def meet(self) -> None:
        """Ask it what it can take; this is its canary, too."""
        capacity = await self._introduce()
        if capacity == self._capacity:
            return
        self._capacity = capacity
        full = capacity.request.max_inputs
        ceiling = min(capacity.inputs_in_flight, capacity.requests_in_flight * full)
        self._limit = AdaptiveLimit(request=full, ceiling=ceiling)
        self.permits.requests_limit = capacity.requests_in_flight
        self.permits.limit = self._limit.limit

    def _open_or_close(self) -> None:
        self.permits.is_open = not self.breaker.is_open

    def _observe(self, call: EmbeddingCall) -> None:
        is_overloaded = isinstance(call.error, TeiOverloadedError)
        is_failed = isinstance(call.error, DependencyError) and not isinstance(
            call.error, TeiOverloadedError | TeiBackendError
        )
        self._limit.observe(
            Observation(
                now=time.monotonic(), duration_s=call.duration_s, tokens=call.tokens, in_flight=self.permits.in_use,
                is_overloaded=is_overloaded, is_failed=is_failed,
            )
        )  # fmt: skip
        self.permits.limit = self._limit.limit
        outcome = "overloaded" if is_overloaded else "failed" if call.error else "embedded"
        self._inputs.labels(outcome).inc(call.inputs)
        self._report(call)


class Servers:
    """All TEI servers; an async context manager that asks those that are away until they are well again."""

    def __init__(self, servers: Sequence[Server], dimension: int) -> None:
        """`dimension` of their vectors."""
        self.dimension = dimension
        self._by_permits = {server.permits: server for server in servers}
        self._limiter = Limiter(list(self._by_permits))
        self._mending: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Meet all servers. Raises ConfigurationError for one that does not fit, DependencyError if none is well."""
        servers = list(self._by_permits.values())
        answers = await asyncio.gather(*(_meet_soon(server) for server in servers), return_exceptions=True)
        faults = [answer for answer in answers if isinstance(answer, BaseException)]
        for fault in faults:
            if not isinstance(fault, DependencyError) or len(faults) == len(servers):
                raise fault
        for server, answer in zip(servers, answers, strict=True):
            if isinstance(answer, DependencyError):
                server.breaker.open(answer)
        self._mending = [asyncio.create_task(server.breaker.recover(), name="tei-breaker") for server in servers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._mending:
            task.cancel()
        await asyncio.wait(self._mending)

    @property
    def permits(self) -> list[Permits]:
        """What is in flight at each server."""
        return list(self._by_permits)

    @property
    def request_limits(self) -> RequestLimits:
        """What every server that was met takes in one request."""
        met = [limits for server in self._by_permits.values() if (limits := server.request_limits)]
        return RequestLimits(
            max_inputs=min(limits.max_inputs for limits in met),
            max_tokens=min(limits.max_tokens for limits in met),
            max_bytes=min(limits.max_bytes for limits in met),
        )

    async def admit(self, weight: int, lane: Lane) -> Admission:
        """Wait until a server has room for a request of so many inputs. DependencyError as soon as all are away."""
        return await self._limiter.acquire(weight, lane)

    async def embed(self, admission: Admission, inputs: Sequence[TextInput]) -> list[Vectors | MillstreamError]:
        """Send an admitted request; the admission is used up.

        Returns for each text, in order, its vector (`float32[dimension]`) or the error that is its own. Raises
        DependencyError if no server did its part.
        """
        tried: set[Permits] = set()
        while True:
            try:
                return await self._by_permits[admission.permits].embedder.embed(inputs)
            except DependencyError as error:
                tried.add(admission.permits)
                if not await self._is_to_be_carried(admission.permits, error):
                    raise
            finally:
                admission.release()
            admission = await self._limiter.acquire(len(inputs), admission.lane)
            if admission.permits in tried:  # it came back in between, and so may go down again
                admission.release()
                raise DependencyError("tei", "its servers go down and come back")

    async def probe(self) -> None:
        """Return if one server at least is well: the canary of all together. Those that are back are used again."""

        async def ask(server: Server) -> None:
            if not await server.breaker.is_well():
                raise DependencyError("tei", "none of its servers is well")

        await first_success([partial(ask, server) for server in self._by_permits.values()])

    async def _is_to_be_carried(self, permits: Permits, error: DependencyError) -> bool:
        is_away = await self._by_permits[permits].breaker.is_unavailable()
        # A text of this request may have brought the server down: it must not go through all of them.
        return is_away and not isinstance(error, TeiBackendError | TeiBreakdownError)


async def _meet_soon(server: Server) -> None:
    try:
        async with asyncio.timeout(_FIRST_MEETING_S):
            await server.meet()
    except TimeoutError as error:
        raise DependencyError("tei", f"no answer within {_FIRST_MEETING_S:g} s") from error
