"""Texts in the batcher, the documents that wait for them, and the vectors that have come back."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np

from embedder.sending.packing import TextInput
from shared.runtime.time_limit import TimeLimit
from shared.tei.client import Vectors


class Wanted:
    """One text that is sent once, for all documents that want it."""

    def __init__(self, text_input: TextInput) -> None:
        self.input = text_input
        self.is_taken = False  # out of the backlog
        self.is_sent = False  # its request was started, and may still wait for its turn
        self._is_in_flight = False  # TEI has it
        self._positions: dict[Submission, list[int]] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether any document still waits for the vector."""
        return any(submission.is_open for submission in self._positions)

    def add(self, submission: "Submission", index: int) -> None:
        """Note where the vector belongs."""
        if submission not in self._positions:
            self._positions[submission] = []
            submission.wants(self)
            if self._is_in_flight:
                submission.began()
        self._positions[submission].append(index)

    def withdraw(self, submission: "Submission") -> None:
        """Forget this document."""
        self._positions.pop(submission, None)

    def take(self) -> None:
        """It is about to be sent: no other document that waits for it is to send it again."""
        self.is_taken = True
        for submission in self._positions:
            submission.waiting -= 1

    def began(self) -> None:
        """A request with it is in flight."""
        self._is_in_flight = True
        for submission in self._positions:
            submission.began()

    def returned(self) -> None:
        """That request has ended, with or without a vector."""
        self._is_in_flight = False
        for submission in self._positions:
            submission.returned()

    def deliver(self, vector: Vectors) -> None:
        for submission, positions in self._positions.items():
            for index in positions:
                submission.deliver(index, vector)

    def fail(self, error: Exception) -> None:
        for submission in self._positions:
            submission.fail(error)


class Submission:
    """One document's texts: hands them out in order; `result` is done when all vectors are in or
    one text failed.

    Its time limit is stopped while none of its texts is in flight, and starts anew when a text
    returns. A text that waits for a permit, for another try or for its turn alone is not in flight.
    """

    def __init__(self, count: int, dimension: int, limit: TimeLimit | None = None) -> None:
        """A document of `count` texts, which `Wanted.add` then adds."""
        self.result: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self.texts: list[Wanted] = []  # each distinct one once
        self.waiting = 0  # texts that were not taken, by this document or another
        self._next: Iterator[Wanted] = iter(self.texts)
        self._missing = count
        self._shape = (count, dimension)
        self._vectors: Vectors | None = None  # made with the first vector: waiting costs no memory
        self._limit = limit or TimeLimit(None)
        self._limit.hold()
        self._in_flight = 0

    @property
    def is_open(self) -> bool:
        """Whether the document still waits for the vectors."""
        return not self.result.done()

    @property
    def is_sent(self) -> bool:
        """Whether all of its texts have been sent."""
        return all(wanted.is_sent for wanted in self.texts)

    def wants(self, wanted: Wanted) -> None:
        """Add a text."""
        self.texts.append(wanted)
        self.waiting += not wanted.is_taken

    def take(self, count: int) -> Sequence[Wanted]:
        """Take the next texts that no document took, at most `count`."""
        taken: list[Wanted] = []
        while self.waiting and len(taken) < count:
            wanted = next(self._next)
            if not wanted.is_taken:
                wanted.take()
                taken.append(wanted)
        return taken

    def began(self) -> None:
        """One of its texts is in flight."""
        self._in_flight += 1
        if self._in_flight == 1:
            self._limit.go_on()

    def returned(self) -> None:
        """The request of one of its texts has ended."""
        self._in_flight -= 1
        self._limit.renew()
        if self._in_flight == 0:
            self._limit.hold()

    def deliver(self, index: int, vector: Vectors) -> None:
        """Put a text's vector, `float32[dimension]`, in its position; once for each position."""
        if self._vectors is None:
            self._vectors = np.empty(self._shape, dtype=np.float32)
        self._vectors[index] = vector
        self._missing -= 1
        if self.is_open and not self._missing:
            self.result.set_result(self._vectors)

    def fail(self, error: Exception) -> None:
        """End with this error, unless it has ended already."""
        if self.is_open:
            self.result.set_exception(error)
