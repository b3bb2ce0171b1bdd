"""Concurrent work on the documents of one batch, for every stage and for scripts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from shared.service.errors import DrainingError

D = TypeVar("D")
R = TypeVar("R")


class BatchWorker(Generic[D, R]):
    """Runs `handle_document` over a batch: at most `limit` at once, results in input order.

    One failure stops no other: `on_error` turns what a document raised into its result. A document
    that takes longer than `timeout` seconds fails with TimeoutError.
    """

    def __init__(
        self,
        handle_document: Callable[[D], Awaitable[R]],
        limit: int,
        *,
        on_error: Callable[[D, Exception], R],
        timeout: float | None = None,
    ) -> None:
        self._handle_document = handle_document
        self._limit = limit
        self._on_error = on_error
        self._timeout = timeout

    async def process_batch(self, documents: Sequence[D]) -> list[R]:
        """One result per document, in the order of `documents`.

        Only cancellation leaves it, and DrainingError: then the whole batch is given back.
        """
        slots = asyncio.Semaphore(self._limit)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._process(document, slots)) for document in documents
                ]
        except* DrainingError:
            raise DrainingError from None
        return [task.result() for task in tasks]

    def process_batch_sync(self, documents: Sequence[D]) -> list[R]:
        """`process_batch` for a script without an event loop."""
        return asyncio.run(self.process_batch(documents))

    async def _process(self, document: D, slots: asyncio.Semaphore) -> R:
        async with slots:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._handle_document(document)
            except DrainingError:
                raise
            except Exception as error:
                return self._on_error(document, error)
