"""The models of an embedder: that of WEBHOOK_TEI_URL, and those of targets with servers of their
own.

Targets on the same servers share them, with their permits, cache and batcher. Whether the chunks of
a target fit a server is checked when the target is first used, and with every handshake.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from embedder.compatibility import PROBE, ChunkShape, Served, check_compatible
from embedder.sending.servers import Servers
from embedder.vectors import VectorSource
from shared.jobs.targets import Target
from shared.runtime.faults.breaker import Pauses
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import ChunkerSettings, TeiSettings
from shared.tei.allowed import TeiServer, addresses, allowed_servers, own_servers
from shared.tei.servers import first_success
from shared.tei.tokenizer import load_tokenizer

_PATIENCE_S = 1.0  # while another caller opens the same servers: a slot is held meanwhile


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one or several servers."""

    served: Served
    servers: Servers
    vectors: VectorSource
    shapes: set[ChunkShape]  # of the chunks that it is used for

    def fit(self, shape: ChunkShape) -> None:
        """Raise ConfigurationError if chunks of this shape are not for this model."""
        if shape not in self.shapes:
            check_compatible(self.served, shape)
            self.shapes.add(shape)


Open = Callable[[Sequence[TeiServer], ChunkShape], Awaitable[Model]]


class Models:
    """Opens models as they are needed, and keeps them."""

    def __init__(
        self,
        open_model: Open,
        tei: TeiSettings,
        chunker: ChunkerSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_model` raises DependencyError, or ConfigurationError for chunks that are not for
        that model.
        """
        self._open = open_model
        self._tei = tei
        self._chunker = chunker
        self._clock = clock
        self._sets: dict[tuple[str, ...], _ServerSet] = {}
        self._probes: dict[str | None, tuple[int, ...]] = {}  # ids of PROBE, by tokenizer

    @property
    def default(self) -> Model | None:
        """The model of WEBHOOK_TEI_URL; None before it was opened."""
        return self._set_of(self._tei.tei_url).model

    async def open_default(self) -> Model:
        """The model of WEBHOOK_TEI_URL. Raises DependencyError, ConfigurationError."""
        servers = own_servers(self._tei, self._tei.tei_url)
        return await self._opened(servers, await self._shape(self._chunker))

    async def of(self, target: Target) -> Model:
        """The model of a target. Raises DependencyError if its servers are unavailable, not allowed
        or do not fit its chunks.

        A caller waits for a second at most while another one opens the same servers. A failure
        holds for the callers of the next seconds.
        """
        try:
            servers = (
                own_servers(self._tei, self._tei.tei_url)
                if target.tei_url is None
                else allowed_servers(self._tei, target.tei_url)
            )
            shape = await self._shape(target.chunking(self._chunker))
            model = await self._opened(servers, shape)
            model.fit(shape)
        except ConfigurationError as error:  # a person must act; no document is at fault
            raise DependencyError("tei", str(error)) from error
        return model

    async def is_unavailable(self, target: Target) -> bool:
        """Ask the servers of a target after one of its requests failed."""
        model = self._set_of(self._urls_of(target)).model
        return model is None or await model.servers.is_unavailable()

    async def probe(self, in_use: Callable[[], Awaitable[Sequence[Target]]]) -> None:
        """Return if the servers of any target in use are available.

        Raises DependencyError, and ConfigurationError if those of WEBHOOK_TEI_URL do not fit.
        """

        async def probe_default() -> None:
            await (await self.open_default()).servers.probe()

        async def probe_others() -> None:
            by_servers = {self._set_of(self._urls_of(target)): target for target in await in_use()}
            by_servers.pop(self._set_of(self._tei.tei_url), None)
            await first_success([partial(self._probe, target) for target in by_servers.values()])

        # At once: one that hangs must not hide another that answers.
        await first_success([probe_default, probe_others])

    async def _probe(self, target: Target) -> None:
        await (await self.of(target)).servers.probe()

    async def _opened(self, servers: Sequence[TeiServer], shape: ChunkShape) -> Model:
        server_set = self._set_of(",".join(server.url for server in servers))
        return await server_set.opened(lambda: self._open(servers, shape))

    def _set_of(self, urls: str) -> "_ServerSet":
        return self._sets.setdefault(tuple(sorted(addresses(urls))), _ServerSet(self._clock))

    def _urls_of(self, target: Target) -> str:
        return target.tei_url or self._tei.tei_url

    async def _shape(self, chunker: ChunkerSettings) -> ChunkShape:
        if chunker.tokenizer not in self._probes:
            tokenizer = await asyncio.to_thread(load_tokenizer, chunker.tokenizer)
            self._probes[chunker.tokenizer] = tuple(tokenizer.encode(PROBE).ids)
        return ChunkShape(
            max_tokens=chunker.max_chunk_tokens, probe_ids=self._probes[chunker.tokenizer]
        )


class _ServerSet:
    """The servers of one model: opened by one caller at a time, whose failure is remembered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.model: Model | None = None
        self._clock = clock
        self._opening = asyncio.Lock()
        self._failure: DependencyError | None = None
        self._pauses = Pauses()
        self._pause = 0.0
        self._again_at = 0.0

    async def opened(self, open_model: Callable[[], Awaitable[Model]]) -> Model:
        """The model. After a failure nobody tries again for some seconds, then one caller does."""
        if self.model is not None:
            return self.model
        if self._opening.locked():
            self._raise_failure()
        await self._wait_for_turn()
        try:
            if self.model is None:
                if self._clock() < self._again_at:
                    self._raise_failure()
                self.model = await self._attempt(open_model)
        finally:
            self._opening.release()
        return self.model

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._opening.acquire()
        except TimeoutError as error:
            raise DependencyError("tei", "its servers do not answer yet") from error

    async def _attempt(self, open_model: Callable[[], Awaitable[Model]]) -> Model:
        try:
            return await open_model()
        except DependencyError as error:
            self._failure = error
            self._pause = self._pauses.after(self._pause)
            self._again_at = self._clock() + self._pause
            raise

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise DependencyError(self._failure.service, self._failure.reason)
