"""Texts to vectors off the event loop: tokenise, group, run the model, put the rows back in input
order.

All requests in flight share the threads, one group at a time; turns.py says whose group is next.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt
import structlog
from tokenizers import Tokenizer

from local.tei import batch, tokenization
from local.tei.batch import Vectors
from local.tei.contract import ErrorType, Limits, Side, TeiError, Token
from local.tei.turns import Turns

# ids int64[n, length] padded on the right, lengths int32[n] -> float32[n, dimension], not
# normalised; blocks.
Backend = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int32]], Vectors]

log = structlog.get_logger()


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """`vectors` float32[n, dimension], not normalised, in input order; `tokens` is what the model
    saw.
    """

    vectors: Vectors
    tokens: int
    tokenization_s: float  # of the request
    queue_s: float  # mean over the inputs: waiting for a thread
    inference_s: float  # mean over the inputs: the run of the model that each was part of


class Engine:
    """Owns the threads; `close` waits for what runs."""

    def __init__(
        self, tokenizer: Tokenizer, backend: Backend, limits: Limits, threads: int
    ) -> None:
        self._tokenizer = tokenizer
        self._backend = backend
        self._limits = limits
        self._threads = threads
        # Tokenising has its own threads: a short query would otherwise wait for a long run of the
        # model.
        self._tokenizing = ThreadPoolExecutor(threads, "tokenize")
        self._inferring = ThreadPoolExecutor(threads, "infer")
        self._turns = Turns(threads)
        self._is_failing = False

    def close(self) -> None:
        self._tokenizing.shutdown(cancel_futures=True)
        self._inferring.shutdown(cancel_futures=True)

    async def embed(self, texts: Sequence[str], truncation: Side | None) -> Embeddings:
        """Raises TeiError: Empty, Validation or Tokenizer for the first bad input, Backend for the
        model.
        """
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        rows = await loop.run_in_executor(
            self._tokenizing, tokenization.encode, self._tokenizer, texts, self._limits, truncation
        )
        try:
            return await self._infer(rows, time.monotonic() - started)
        except ExceptionGroup as group:
            error = group.exceptions[0]
            # No traceback: it ends inside onnxruntime, and drawing one takes 100 ms of the event
            # loop.
            log.error("Embedding backend failed", error=repr(error))
            raise TeiError(ErrorType.BACKEND, f"Backend error: {error}") from error

    async def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text; raises TeiError as `embed` does."""
        describe = partial(
            tokenization.describe, self._tokenizer, texts, self._limits, special=special
        )
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, describe)

    async def is_healthy(self) -> bool:
        """Whether the last run of the model succeeded; after a failure, whether one more does."""
        if not self._is_failing:
            return True
        try:
            await self.embed(["health"], None)
        except TeiError:
            return False
        return True

    async def _infer(self, rows: Sequence[list[int]], tokenization_s: float) -> Embeddings:
        """Raises an ExceptionGroup of what the backend raised."""
        groups = batch.pack(
            [len(row) for row in rows], min(batch.MAX_TOKENS, self._limits.max_batch_tokens)
        )
        waiting = iter(groups)
        deadline = self._turns.deadline(sum(map(len, rows)))
        results: list[tuple[list[int], Vectors]] = []
        arrived = time.monotonic()
        queue_s, inference_s = [], []

        async def take_turns() -> None:
            for group in waiting:
                members = [rows[index] for index in group]
                async with self._turns.take(deadline, sum(map(len, members))):
                    started = time.monotonic()
                    results.append((group, await self._run(members)))
                queue_s.append((started - arrived) * len(group))
                inference_s.append((time.monotonic() - started) * len(group))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._threads, len(groups))):
                tasks.create_task(take_turns(), name="embed groups")
        return Embeddings(
            vectors=_in_input_order(results),
            tokens=sum(map(len, rows)),
            tokenization_s=tokenization_s,
            queue_s=sum(queue_s) / len(rows),
            inference_s=sum(inference_s) / len(rows),
        )

    async def _run(self, rows: Sequence[list[int]]) -> Vectors:
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(
                self._inferring, lambda: self._backend(*batch.pad(rows))
            )
        except Exception:
            self._is_failing = True
            raise
        self._is_failing = False
        return vectors


def _in_input_order(results: Sequence[tuple[list[int], Vectors]]) -> Vectors:
    order = np.concatenate([group for group, _ in results])
    vectors = np.empty((len(order), results[0][1].shape[1]), np.float32)
    vectors[order] = np.concatenate([part for _, part in results])
    return vectors
