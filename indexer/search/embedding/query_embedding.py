"""Embeds queries with the TEI servers: the one that has the fewest in flight, and another one when
that fails.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from shared.service.errors import DependencyError
from shared.tei.client import TeiClient, Vectors

AVOIDED_S = 5.0  # how long a server that failed is asked last
TRY_S = 2.0  # then the next server is asked; the search has time for two
ONLY_TRY_S = 4.5  # where there is one server: a little less than the search waits
ALIVE_S = 1.0  # for a server that did not embed a query in time to say whether it is only busy


class QueryEmbedder:
    """The embed function of searches. The permits that it uses are those that embedders leave free.

    It has no breaker: a failure costs one search a moment, and the next ones go to other servers
    first. While every server is silent the searches that follow do not wait at all. A server that
    is busy is not silent: the next search may be in time.
    """

    def __init__(
        self,
        clients: Sequence[TeiClient],
        observe: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        try_s: float | None = None,
    ) -> None:
        """`observe` is given the seconds of each request.

        `try_s` is what a server has to answer a query; by default as long as a search waits, or
        half of that where there are several servers.
        """
        self._clients = clients
        self._observe = observe
        self._clock = clock
        self._in_flight = dict.fromkeys(clients, 0)
        self._avoided_until = dict.fromkeys(clients, 0.0)
        self._silent_until = dict.fromkeys(clients, 0.0)
        self._asked: dict[TeiClient, asyncio.Task[None]] = {}
        self._models: dict[TeiClient, str] = {}  # asked for before the first query
        self._try_s = try_s or (TRY_S if len(clients) > 1 else ONLY_TRY_S)

    async def __call__(self, text: str, model: str | None) -> Vectors:
        """Return the vector of a query by this model, None for any: `float32[dimension]`.

        Raises DependencyError if every server failed or serves another model, and RejectedError.
        """
        failure = DependencyError("tei", "no server is known")
        if self._clock() < min(self._silent_until.values(), default=0.0):
            raise DependencyError("tei", "no server answered a moment ago")
        for client in sorted(self._clients, key=self._rank):
            try:
                return await self._embed(client, text, model)
            except DependencyError as error:
                failure = error
        raise failure

    def _rank(self, client: TeiClient) -> tuple[bool, int]:
        return self._clock() < self._avoided_until[client], self._in_flight[client]

    async def _embed(self, client: TeiClient, text: str, model: str | None) -> Vectors:
        self._in_flight[client] += 1
        started = self._clock()
        try:
            async with asyncio.timeout(self._try_s):
                await self._check_model(client, model)
                return await client.embed_query(text)
        except TimeoutError as error:
            self._avoid(client)
            self._ask(client)
            reason = f"no answer of {client.name} within {self._try_s:g} s"
            raise DependencyError("tei", reason) from error
        except (DependencyError, asyncio.CancelledError):
            self._avoid(client)
            raise
        finally:
            self._in_flight[client] -= 1
            self._observe(self._clock() - started)

    async def _check_model(self, client: TeiClient, model: str | None) -> None:
        """Raise DependencyError for a server of another model. A server that failed may have
        another one since, and is asked again.
        """
        if client not in self._models:
            self._models[client] = (await client.info()).model_id
        if model not in {None, self._models[client]}:
            served = self._models[client]
            raise DependencyError(
                "tei", f"{client.name} serves {served}, but the collection has vectors of {model}"
            )

    def _avoid(self, client: TeiClient) -> None:
        self._avoided_until[client] = self._clock() + AVOIDED_S
        self._models.pop(client, None)

    def _ask(self, client: TeiClient) -> None:
        """Find out whether a server is silent or only busy. Until it has said so, it counts as
        silent.
        """
        self._silent_until[client] = self._clock() + AVOIDED_S
        if client not in self._asked:
            task = asyncio.create_task(self._find_out(client), name="tei-is-alive")
            self._asked[client] = task
            task.add_done_callback(lambda _: self._asked.pop(client))

    async def _find_out(self, client: TeiClient) -> None:
        try:
            async with asyncio.timeout(ALIVE_S):
                await client.health()
        except (DependencyError, TimeoutError):
            return
        self._silent_until[client] = 0.0
