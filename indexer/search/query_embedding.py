"""Embeds queries with the TEI servers: the one that has the fewest in flight, and another one when that fails."""

import asyncio
import time
from collections.abc import Callable, Sequence

from shared.service.errors import DependencyError
from shared.tei.client import TeiClient, Vectors

AVOIDED_S = 5.0  # how long a server that failed is asked last
TRY_S = 2.0  # then the next server is asked; the search has time for two
ONLY_TRY_S = 4.5  # where there is one server: a little less than the search waits


class QueryEmbedder:
    """The embed function of searches. The permits it uses are those that embedders leave free.

    It knows no breakers: a failure costs one search a moment, and the next ones go elsewhere first. While every
    server is silent the searches that follow do not wait at all.
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
        self._silent_until = dict.fromkeys(clients, 0.0)
        self._try_s = TRY_S if len(clients) > 1 else ONLY_TRY_S

    async def __call__(self, text: str) -> Vectors:
        """The vector of a query, `float32[dimension]`. Raises DependencyError if every server failed, RejectedError."""
        failure = DependencyError("tei", "no server is known")
        if self._clock() < min(self._silent_until.values(), default=0.0):
            raise DependencyError("tei", "no server answered a moment ago")
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
            async with asyncio.timeout(self._try_s):
                return await client.embed_query(text)
        except TimeoutError as error:
            self._avoid(client)
            self._silent_until[client] = self._avoided_until[client]
            raise DependencyError("tei", f"no answer of {client.name} within {self._try_s:g} s") from error
        except (DependencyError, asyncio.CancelledError):
            self._avoid(client)
            raise
        finally:
            self._in_flight[client] -= 1
            self._observe(self._clock() - started)

    def _avoid(self, client: TeiClient) -> None:
        self._avoided_until[client] = self._clock() + AVOIDED_S
