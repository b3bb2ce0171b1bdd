"""Embeds the texts of all documents in flight together, so that small documents share requests.

Sits in the service pool; each document's handler awaits `embed`. It decides when a text is sent and
with which others of its lane; `sending` decides how many go to which server, and which text is at
fault when a request fails. Equal texts that are wanted at the same time are sent once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from embedder.backlog import Backlog
from embedder.sending.limiter import Admission
from embedder.sending.packing import TextInput, fitting, in_sending_order
from embedder.sending.servers import Servers
from embedder.submission import Submission, Wanted
from shared.pipeline.lanes import Lane
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError, DrainingError
from shared.tei.client import Vectors

# How long an idle batcher waits for more texts before it sends less than a full request.
LINGER_S = 0.003
SORTED_REQUESTS = 8  # texts of so many requests are sorted by length together
DRAIN_S = 4.0  # for what is in flight when the process is told to stop


class EmbeddingBatcher:
    """An async context manager; `embed` works inside it. It owns a task for each lane and for each
    request.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        keep: Callable[[str, Vectors], None] = lambda *_: None,
        linger_s: float = LINGER_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        """`keep` is given each text and its vector, `float32[dimension]`, as it arrives; it must
        not raise.
        """
        self._servers = servers
        self._keep = keep
        self._linger_s = linger_s
        self._drain_s = drain_s
        self._backlogs = {lane: Backlog() for lane in Lane}
        self._arrived = {lane: asyncio.Event() for lane in Lane}
        self._open: set[Submission] = set()
        self._wanted: dict[str, Wanted] = {}  # by text
        self._in_flight: dict[asyncio.Task[None], list[Wanted]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._is_draining = False

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name="embedding-batcher")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what is in flight; documents that still wait fail with DependencyError."""
        assert self._runner is not None
        self._runner.cancel()
        await asyncio.wait([self._runner])
        if not self._runner.cancelled():
            self._runner.result()  # a bug ended the loop before: let it be seen

    async def embed(
        self, inputs: Sequence[TextInput], lane: Lane = Lane.NORMAL, limit: TimeLimit | None = None
    ) -> Vectors:
        """Embed one document's texts: `float32[len(inputs), dimension]`, in order.

        `limit` is stopped while the document waits and starts anew with each answer: a slow TEI
        is no fault of the document. Raises RejectedError("tei_rejected") if TEI refuses one of the
        texts, DependencyError if TEI does not do its part, DrainingError once the process drains;
        other documents are not touched. Cancelling it withdraws the texts that are not yet sent,
        and the requests that hold no other document's texts.
        """
        if not inputs:
            return np.empty((0, self.dimension), dtype=np.float32)
        if self._runner is None or self._runner.done() or self._runner.cancelling():
            raise DependencyError("tei", "the batcher is not running")
        if self._is_draining:
            raise DrainingError
        submission = self._submit(inputs, limit)
        if submission.waiting:
            self._backlogs[lane].add(submission)
            self._arrived[lane].set()
        try:
            return await submission.result
        finally:
            self._backlogs[lane].discard(submission)
            self._withdraw(submission)

    def _submit(self, inputs: Sequence[TextInput], limit: TimeLimit | None) -> Submission:
        submission = Submission(len(inputs), self._servers.dimension, limit)
        self._open.add(submission)
        for index, each in enumerate(inputs):
            wanted = self._wanted.get(each.text)
            # A text that is no longer wanted may be dropped or cancelled: it must not be joined.
            if wanted is None or not wanted.is_wanted:
                wanted = self._wanted[each.text] = Wanted(each)
            wanted.add(submission, index)
        return submission

    def _withdraw(self, submission: Submission) -> None:
        """Forget a submission, its texts that no other one wants, and the requests that hold only
        such texts.
        """
        self._open.discard(submission)
        for wanted in submission.texts:
            wanted.withdraw(submission)
            if not wanted.is_wanted:
                self._forget(wanted)
        for task, texts in self._in_flight.items():
            if not any(wanted.is_wanted for wanted in texts):
                task.cancel()

    def _forget(self, wanted: Wanted) -> None:
        """Later submissions of the same text start a new request."""
        if self._wanted.get(wanted.input.text) is wanted:
            del self._wanted[wanted.input.text]

    def drain(self) -> None:
        """Fail all documents with texts that are not yet sent, at once; those in flight get some
        seconds to end.
        """
        self._is_draining = True
        for submission in [each for each in self._open if not each.is_sent]:
            submission.fail(DrainingError())
        asyncio.get_running_loop().call_later(self._drain_s, self._give_up)

    def _give_up(self) -> None:
        for submission in self._open:
            submission.fail(DrainingError())

    @property
    def dimension(self) -> int:
        """Of all vectors."""
        return self._servers.dimension

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for lane in Lane:
                    tasks.create_task(self._send(tasks, lane))
        finally:
            for submission in self._open:
                submission.fail(DependencyError("tei", "the batcher stopped"))

    async def _send(self, tasks: asyncio.TaskGroup, lane: Lane) -> None:
        """Send the texts of one lane; each lane waits for permits by itself, and they are given in
        turns.
        """
        while True:
            await self._gather(lane)
            texts = self._take(lane)
            while texts:
                texts = await self._send_request(tasks, texts, lane)

    async def _gather(self, lane: Lane) -> None:
        await self._arrived[lane].wait()
        if len(self._backlogs[lane]) < self._servers.largest_request:
            await asyncio.sleep(self._linger_s)

    def _take(self, lane: Lane) -> list[Wanted]:
        """Take texts out of the backlog, in the order in which they are to be sent."""
        full = self._servers.largest_request
        texts = self._backlogs[lane].take(SORTED_REQUESTS * full, turn=full)
        if not self._backlogs[lane]:
            self._arrived[lane].clear()
        return [texts[index] for index in in_sending_order([wanted.input for wanted in texts])]

    async def _send_request(
        self, tasks: asyncio.TaskGroup, texts: list[Wanted], lane: Lane
    ) -> list[Wanted]:
        """Wait for a server with room and send it the first texts that are still wanted; returns
        the others.
        """
        try:
            admission, limits = await self._servers.admit(len(texts), lane)
        except DependencyError as error:
            self._fail(texts, error)
            return []
        texts = [wanted for wanted in texts if wanted.is_wanted]
        count = fitting([wanted.input for wanted in texts[: admission.weight]], limits)
        if not count:
            admission.release()
            return []
        admission.shrink(count)
        self._start(tasks, admission, texts[:count])
        return texts[count:]

    def _start(self, tasks: asyncio.TaskGroup, admission: Admission, texts: list[Wanted]) -> None:
        task = tasks.create_task(self._serve(admission, texts), name="embedding-request")
        self._in_flight[task] = texts
        for wanted in texts:
            wanted.is_sent = True
        task.add_done_callback(self._in_flight.pop)
        # For one that is cancelled before it begins.
        task.add_done_callback(lambda _: admission.release())

    async def _serve(self, admission: Admission, texts: list[Wanted]) -> None:
        try:
            outcomes = await self._servers.embed(
                admission, [wanted.input for wanted in texts], partial(_in_flight, texts)
            )
        # TEI's fault or a bug: it belongs to the documents of this request.
        except Exception as error:
            self._fail(texts, error)
            return
        for wanted, outcome in zip(texts, outcomes, strict=True):
            self._forget(wanted)
            if isinstance(outcome, Exception):
                wanted.fail(outcome)
            else:
                self._keep(wanted.input.text, outcome)
                wanted.deliver(outcome)

    def _fail(self, texts: Sequence[Wanted], error: Exception) -> None:
        for wanted in texts:
            self._forget(wanted)
            wanted.fail(error)


@contextlib.contextmanager
def _in_flight(texts: Sequence[Wanted], inputs: Sequence[TextInput]) -> Iterator[None]:
    """Count the time of the block against the documents that want `inputs`, some of `texts`."""
    sent = {each.text for each in inputs}
    flying = [wanted for wanted in texts if wanted.input.text in sent]
    for wanted in flying:
        wanted.began()
    try:
        yield
    finally:
        for wanted in flying:
            wanted.returned()
