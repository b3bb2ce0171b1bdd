"""TEI's queue, for stand-ins: one first-in-first-out queue of inputs, batches one after the other.

As TEI 1.9 does, it computes the queued inputs of all requests in batches, answers a request when
its last input is done, and drops the queued inputs of a request whose client has gone when their
turn comes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import msgspec

_KEPT_WAITS = 100_000


class BatchCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch takes, in seconds."""

    fixed_s: float = 0.0
    input_s: float = 0.0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request: means over its inputs, in seconds."""

    queue_s: float = 0.0
    inference_s: float = 0.0

    @property
    def headers(self) -> Mapping[str, str]:
        """As TEI has them: whole milliseconds."""
        total = str(round(1000 * (self.queue_s + self.inference_s)))
        return {
            "x-total-time": total,
            "x-tokenization-time": "0",
            "x-queue-time": str(round(1000 * self.queue_s)),
            "x-inference-time": str(round(1000 * self.inference_s)),
        }


class _Queued:
    """One request in the queue."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.waiting = inputs
        self.computing = 0
        self.arrived = time.monotonic()
        self.queue_s = 0.0  # sums over the inputs
        self.inference_s = 0.0
        self.has_client = True
        self.is_done = asyncio.Event()


class BatchQueue:
    """The queue and the model behind it; owns a task from `start` to `stop`."""

    def __init__(self, batch_inputs: int, cost: BatchCost) -> None:
        """At most `batch_inputs` in one batch."""
        self.slowness = 1.0  # a factor of every batch's time
        self.dropped = 0  # inputs
        self._batch_inputs = batch_inputs
        self._cost = cost
        self._queue: deque[_Queued] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.dropped = self._received = self._computed = self._batches = 0
        self._busy_s = self._queue_s = self._inference_s = 0.0
        self._first = self._last = 0.0
        self._waits: deque[float] = deque(maxlen=_KEPT_WAITS)

    @property
    def size(self) -> int:
        """Inputs that wait."""
        return sum(request.waiting for request in self._queue)

    @property
    def busy(self) -> float:
        """Share of the time between the first batch and the last in which one was computed."""
        return self._busy_s / (self._last - self._first) if self._batches else 0.0

    def wait_s(self, quantile: float) -> float:
        """The time in the queue that this share of the inputs did not exceed."""
        waits = sorted(self._waits)
        return waits[int(quantile * (len(waits) - 1))] if waits else 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tei-queue")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def compute(self, inputs: int) -> Timing:
        """Wait until so many inputs have been computed. If cancelled, those that still wait will be
        dropped.
        """
        request = _Queued(inputs)
        self._received += inputs
        self._queue.append(request)
        self._arrived.set()
        try:
            await request.is_done.wait()
        except asyncio.CancelledError:
            request.has_client = False
            raise
        return Timing(queue_s=request.queue_s / inputs, inference_s=request.inference_s / inputs)

    def metrics(self) -> str:
        """The metrics of TEI's /metrics that benches and tests read."""
        return "\n".join(
            [
                f"te_queue_size {self.size}",
                f"te_embed_count {self._received}",
                f"te_embed_success {self._computed}",
                f'te_request_failure{{err="dropped"}} {self.dropped}',
                f"te_batch_next_size_sum {self._computed}",
                f"te_batch_next_size_count {self._batches}",
                f"te_request_queue_duration_sum {self._queue_s}",
                f"te_request_queue_duration_count {self._computed}",
                f"te_request_inference_duration_sum {self._inference_s}",
                f"te_request_inference_duration_count {self._computed}",
                "",
            ]
        )

    async def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            started = time.monotonic()
            self._first = self._first or started
            inputs = sum(request.computing for request in batch)
            await asyncio.sleep(self.slowness * (self._cost.fixed_s + inputs * self._cost.input_s))
            self._finish(batch, started, time.monotonic())

    def _next_batch(self) -> list[_Queued]:
        """Take inputs from the front; those without a client any more are dropped."""
        batch: list[_Queued] = []
        room = self._batch_inputs
        while self._queue and room:
            request = self._queue[0]
            if not request.has_client:
                self.dropped += request.waiting
                self._queue.popleft()
                continue
            request.computing = min(room, request.waiting)
            request.waiting -= request.computing
            room -= request.computing
            batch.append(request)
            if not request.waiting:
                self._queue.popleft()
        return batch

    def _finish(self, batch: list[_Queued], started: float, ended: float) -> None:
        self._batches += 1
        self._busy_s += ended - started
        self._last = ended
        for request in batch:
            wait_s = started - request.arrived
            self._waits.extend([wait_s] * request.computing)
            request.queue_s += wait_s * request.computing
            request.inference_s += (ended - started) * request.computing
            self._queue_s += wait_s * request.computing
            self._inference_s += (ended - started) * request.computing
            self._computed += request.computing
            request.computing = 0
            if not request.waiting:
                request.is_done.set()
