"""TEI and the embedders that share it, in virtual time: the real window, a modelled server.

The server has one first-in-first-out queue of inputs and computes batches one after the other; a
batch costs a fixed time and a time for each input. Embedders always have work and know nothing of
each other.
"""

import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from embedder.sending.window import Answer, Window
from shared.tei.client import ServerTiming

NETWORK_S = 0.002  # there and back
TURNAROUND_S = 0.002  # from an answer to the next request
LARGEST_REQUEST = 32
TOKENS = 200  # of a mean input


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch costs."""

    fixed_s: float
    input_s: float
    batch_inputs: int  # the most in one batch
    is_limited: bool = True  # whether /info names that limit
    permits: int = 512

    @property
    def inputs_per_s(self) -> float:
        """With full batches."""
        return self.batch_inputs / self.batch_s

    @property
    def batch_s(self) -> float:
        """Of a full batch."""
        return self.fixed_s + self.batch_inputs * self.input_s


class Embedder:
    """One process: a window, and what it has in flight."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.in_flight = 0
        self.embedded: list[float] = []  # times, one for each input
        self.is_running = True
        self.resumes_at = 0.0


class Request:
    """Inputs of one embedder on their way."""

    def __init__(self, embedder: Embedder, inputs: int) -> None:
        self.embedder = embedder
        self.inputs = inputs
        self.left = inputs
        self.sent = 0.0
        self.arrived = 0.0
        self.queue_s = 0.0  # sums over the inputs
        self.inference_s = 0.0
        self.tokens = 0.0


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in a stretch of time."""

    busy: float  # share of it in which a batch was computed
    queue_p95_s: float
    batch_s: float  # mean
    inputs_per_s: float
    shares: tuple[float, ...]  # inputs of each embedder that ran to the end
    windows: tuple[int, ...]  # at its end
    refused: int  # requests, since the start

    @property
    def fairness(self) -> float:
        """Jain's index: 1 if all embedders got the same, 1/n if one got all."""
        squares = sum(share * share for share in self.shares)
        return sum(self.shares) ** 2 / (len(self.shares) * squares) if squares else 0.0


class Simulation:
    """A server and its embedders; `run` lets virtual time pass and says what was seen."""

    def __init__(
        self, speed: Speed, embedders: int, *, has_timing: bool = True, seed: int = 0
    ) -> None:
        self.speed = speed
        self.slowness = 1.0
        self.embedders: list[Embedder] = []
        self.now = 0.0
        self._has_timing = has_timing
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._queue: deque[tuple[Request, float]] = (
            deque()
        )  # inputs, each with its share of a mean input's cost
        self._permits = speed.permits
        self._is_computing = False
        self._batches: list[tuple[float, float, int]] = []  # start, end, inputs
        self._waits: list[tuple[float, float]] = []  # start of the batch, time in the queue
        self._refused = 0
        for _ in range(embedders):
            self.join()

    def join(self) -> None:
        """One more embedder begins."""
        window = Window(
            largest_request=LARGEST_REQUEST,
            ceiling=int(self.speed.permits * 0.9),
            batch_inputs=self.speed.batch_inputs if self.speed.is_limited else None,
        )
        embedder = Embedder(window)
        self.embedders.append(embedder)
        self._send(embedder)

    def leave(self, count: int = 1) -> None:
        """The last embedders end; what they have in flight is still computed."""
        for _ in range(count):
            self.embedders.pop().is_running = False

    def run(self, seconds: float) -> Phase:
        """Let time pass."""
        started, end = self.now, self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = end
        return self._phase(started)

    def _phase(self, started: float) -> Phase:
        seconds = self.now - started
        batches = [batch for batch in self._batches if batch[1] > started]
        waits = sorted(wait for at, wait in self._waits if at >= started)
        computed = sum(min(end, self.now) - max(start, started) for start, end, _ in batches)
        return Phase(
            busy=computed / seconds,
            queue_p95_s=waits[int(0.95 * len(waits))] if waits else 0.0,
            batch_s=sum(end - start for start, end, _ in batches) / max(1, len(batches)),
            inputs_per_s=sum(inputs for *_, inputs in batches) / seconds,
            shares=tuple(sum(at >= started for at in each.embedded) for each in self.embedders),
            windows=tuple(each.window.inputs for each in self.embedders),
            refused=self._refused,
        )

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happen))

    def _send(self, embedder: Embedder) -> None:
        while embedder.is_running and self.now >= embedder.resumes_at:
            inputs = embedder.window.request_inputs
            if embedder.in_flight and embedder.in_flight + inputs > embedder.window.inputs:
                return
            embedder.in_flight += inputs
            self._post(Request(embedder, inputs))

    def _post(self, request: Request) -> None:
        request.sent = self.now
        self._at(self.now + NETWORK_S / 2, lambda: self._arrive(request))

    def _arrive(self, request: Request) -> None:
        if request.inputs > self._permits:
            self._refused += 1
            request.embedder.window.refused(self.now, self.now - request.sent)
            self._at(self.now + self._random.uniform(0.0, 0.1), lambda: self._post(request))
            return
        self._permits -= request.inputs
        request.arrived = self.now
        self._queue.extend((request, self._random.uniform(0.5, 1.5)) for _ in range(request.inputs))
        self._compute()

    def _compute(self) -> None:
        if self._is_computing or not self._queue:
            return
        batch = [
            self._queue.popleft() for _ in range(min(self.speed.batch_inputs, len(self._queue)))
        ]
        seconds = self.slowness * (
            self.speed.fixed_s + self.speed.input_s * sum(size for _, size in batch)
        )
        for request, size in batch:
            wait = self.now - request.arrived
            self._waits.append((self.now, wait))
            request.queue_s += wait
            request.inference_s += seconds
            request.tokens += TOKENS * size
        self._is_computing = True
        self._batches.append((self.now, self.now + seconds, len(batch)))
        self._at(self.now + seconds, lambda: self._finish(batch))

    def _finish(self, batch: Sequence[tuple[Request, float]]) -> None:
        self._is_computing = False
        self._permits += len(batch)
        for request, _ in batch:
            request.left -= 1
            request.embedder.embedded.append(self.now)
            if not request.left:
                answer = functools.partial(self._answer, request)
                self._at(self.now + NETWORK_S / 2, answer)
        self._compute()

    def _answer(self, request: Request) -> None:
        embedder, inputs = request.embedder, request.inputs
        timing = ServerTiming(
            queue_s=request.queue_s / inputs, inference_s=request.inference_s / inputs
        )
        embedder.window.answered(
            Answer(
                inputs=inputs,
                tokens=int(request.tokens),
                duration_s=self.now - request.sent,
                in_flight=embedder.in_flight,
                timing=timing if self._has_timing else None,
            )
        )
        embedder.in_flight -= inputs
        pause_s = embedder.window.pause_s * self._random.uniform(0.8, 1.2)
        embedder.resumes_at = self.now + (pause_s or TURNAROUND_S)
        self._at(embedder.resumes_at, lambda: self._send(embedder))
