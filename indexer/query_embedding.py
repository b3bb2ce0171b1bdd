"""Embeds queries with the TEI servers: the one that has the fewest in flight, and another one when that fails."""

import asyncio
import time
from collections.abc import Callable, Sequence

from shared.errors import DependencyError
from shared.tei import TeiClient, Vectors

AVOIDED_S = 5.0  # how long a server that failed is asked last
TRY_S = 2.0  # then the next server is asked; the search has time for two


class QueryEmbedder:
    """The embed function of searches. The permits it uses are those that embedders leave free.

    It knows no breakers: a failure costs one search a moment, and the next ones go elsewhere first.
    """

    def __init__(
        self,
        clients: Sequence[TeiClient],
        observe: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`observe` is given the seconds of each request."""
        self._clients = clients
        self._observe = observe
        self._clock = clock
        self._in_flight = dict.fromkeys(clients, 0)
        self._avoided_until = dict.fromkeys(clients, 0.0)

    async def __call__(self, text: str) -> Vectors:
        """The vector of a query, `float32[dimension]`. Raises DependencyError if every server failed, RejectedError."""
        failure = DependencyError("tei", "no server is known")
        for client in sorted(self._clients, key=self._rank):
            try:
                return await self._embed(client, text)
            except DependencyError as error:
                failure = error
        raise failure

    def _rank(self, client: TeiClient) -> tuple[bool, int]:
        return self._clock() < self._avoided_until[client], self._in_flight[client]

    async def _embed(self, client: TeiClient, text: str) -> Vectors:
        self._in_flight[client] += 1
        started = self._clock()
        try:
            async with asyncio.timeout(TRY_S if len(self._clients) > 1 else None):
                return await client.embed_query(text)
        except TimeoutError as error:
            self._avoid(client)
            raise DependencyError("tei", f"no answer of {client.name} within {TRY_S:g} s") from error
        except (DependencyError, asyncio.CancelledError):
            self._avoid(client)
            raise
        finally:
            self._in_flight[client] -= 1
            self._observe(self._clock() - started)

    def _avoid(self, client: TeiClient) -> None:
        self._avoided_until[client] = self._clock() + AVOIDED_S
