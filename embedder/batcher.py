"""Embeds the texts of all documents in hand together: what one document is too small to fill, several share.

Sits in the service pool; each document's handler awaits `embed`. It decides when and with whom a text
travels; `packing` decides what fits, `isolation` carries a request and blames the right text.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from embedder.backlog import Backlog
from embedder.isolation import IsolatingEmbedder
from embedder.limiter import WeightedLimiter
from embedder.packing import Capacity, TextInput, pack
from embedder.submission import Piece, Submission
from shared.errors import DependencyError
from shared.messages import Lane
from shared.tei import Vectors

LINGER_S = 0.003  # how long an idle batcher waits for company before it sends less than a full request
PLANNED_REQUESTS = 8  # planned together: enough for sorting by length to pay, few for a high lane to wait for


class EmbeddingBatcher:
    """An async context manager; `embed` works inside it. It owns a loop task and a task for each request."""

    def __init__(
        self,
        embedder: IsolatingEmbedder,
        capacity: Capacity,
        limiter: WeightedLimiter,
        *,
        linger_s: float = LINGER_S,
    ) -> None:
        """`limiter` counts inputs in flight; its owner may change its limit at any time."""
        self._embedder = embedder
        self._limits = capacity.request
        self._inputs = limiter
        self._requests = WeightedLimiter(capacity.requests_in_flight)
        self._linger_s = linger_s
        self._backlog = Backlog(turn=self._limits.max_inputs)
        self._arrived = asyncio.Event()
        self._open: set[Submission] = set()
        self._in_flight: dict[asyncio.Task[None], list[Piece]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name="embedding-batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what is in flight; documents that still wait fail with DependencyError."""
        assert self._runner is not None
        self._runner.cancel()
        await asyncio.wait([self._runner])
        if not self._runner.cancelled():
            self._runner.result()  # a bug ended the loop before: let it be seen

    async def embed(self, inputs: Sequence[TextInput], lane: Lane = Lane.NORMAL) -> Vectors:
        """Embed one document's texts: `float32[len(inputs), dimension]`, in order.

        Raises RejectedError("tei_rejected") if TEI refuses one of them, and DependencyError if TEI does
        not do its part; other documents are not touched. Cancelling it withdraws what is not yet sent, and
        requests that carry nobody else's texts.
        """
        if not inputs:
            return np.empty((0, self._embedder.dimension), dtype=np.float32)
        if self._runner is None or self._runner.done() or self._runner.cancelling():
            raise DependencyError("tei", "the batcher is not running")
        submission = Submission(inputs, self._embedder.dimension)
        self._open.add(submission)
        self._backlog.add(submission, lane)
        self._arrived.set()
        try:
            return await submission.result
        finally:
            self._open.discard(submission)
            self._backlog.discard(submission, lane)
            self._cancel_orphans()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._gather()
                    for pieces in self._plan():
                        await self._start(tasks, pieces)
        finally:
            for submission in self._open:
                submission.fail(DependencyError("tei", "the batcher stopped"))

    async def _gather(self) -> None:
        await self._arrived.wait()
        if len(self._backlog) < self._limits.max_inputs:
            await asyncio.sleep(self._linger_s)

    def _plan(self) -> list[list[Piece]]:
        pieces = self._backlog.take(PLANNED_REQUESTS * self._limits.max_inputs)
        if not self._backlog:
            self._arrived.clear()
        plan = pack([piece.input for piece in pieces], self._limits)
        return [[pieces[index] for index in request] for request in plan]

    async def _start(self, tasks: asyncio.TaskGroup, pieces: list[Piece]) -> None:
        """Wait for permits, then send what is still wanted."""
        await self._requests.acquire(1)
        await self._inputs.acquire(len(pieces))
        wanted = [piece for piece in pieces if piece.submission.is_open]
        self._inputs.release(len(pieces) - len(wanted))
        if not wanted:
            self._requests.release(1)
            return
        task = tasks.create_task(self._serve(wanted), name="embedding-request")
        self._in_flight[task] = wanted
        task.add_done_callback(self._finish)

    async def _serve(self, pieces: list[Piece]) -> None:
        outcomes: Sequence[Vectors | Exception]
        try:
            outcomes = await self._embedder.embed([piece.input for piece in pieces])
        except Exception as error:  # TEI's fault or a bug: it belongs to the documents of this request
            outcomes = [error] * len(pieces)
        for piece, outcome in zip(pieces, outcomes, strict=True):
            if isinstance(outcome, Exception):
                piece.submission.fail(outcome)
            else:
                piece.submission.deliver(piece.index, outcome)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._inputs.release(len(self._in_flight.pop(task)))
        self._requests.release(1)

    def _cancel_orphans(self) -> None:
        for task, pieces in self._in_flight.items():
            if not any(piece.submission.is_open for piece in pieces):
                task.cancel()
