"""One document's texts on their way through the batcher, and the vectors that have come back."""

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np

from embedder.packing import TextInput
from shared.tei import Vectors


class Piece(msgspec.Struct, frozen=True):
    """One text of a submission, taken out of the backlog to be sent."""

    submission: "Submission"
    index: int
    input: TextInput


class Submission:
    """Hands out its texts once and in order; `result` is done when all vectors are in or one text failed."""

    def __init__(self, inputs: Sequence[TextInput], dimension: int) -> None:
        self.result: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._inputs = inputs
        self._taken = 0
        self._missing = len(inputs)
        self._shape = (len(inputs), dimension)
        self._vectors: Vectors | None = None  # made with the first vector: waiting costs no memory

    @property
    def is_open(self) -> bool:
        """Whether anybody still waits for the vectors."""
        return not self.result.done()

    @property
    def waiting(self) -> int:
        """How many texts have not been taken."""
        return len(self._inputs) - self._taken

    def take(self, count: int) -> list[Piece]:
        """Take the next texts, at most `count`."""
        start, self._taken = self._taken, min(self._taken + count, len(self._inputs))
        return [Piece(self, index, self._inputs[index]) for index in range(start, self._taken)]

    def deliver(self, index: int, vector: Vectors) -> None:
        """Put a text's vector, `float32[dimension]`, in its place; once for each text."""
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
