"""The models of an embedder: that of WEBHOOK_TEI_URL, and those of targets with servers of their
own.

Targets on the same servers share them, with their permits, cache and batcher. Whether the chunks of
a target fit a server is checked when the target is first used, and with every handshake.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from embedder.compatibility import PROBE, ChunkShape, Served, check_compatible
from embedder.vectors import VectorSource
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import ChunkerSettings, TeiSettings
from shared.tei.tokenizer import load_tokenizer


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one or several servers."""

    served: Served
    vectors: VectorSource
    shapes: set[ChunkShape]  # of the chunks that it is used for

    def fit(self, shape: ChunkShape) -> None:
        """Raise ConfigurationError if chunks of this shape are not for this model."""
        if shape not in self.shapes:
            check_compatible(self.served, shape)
            self.shapes.add(shape)


Open = Callable[[TeiSettings, ChunkShape], Awaitable[Model]]


class Models:
    """Opens models as they are needed, and keeps them."""

    def __init__(self, open_model: Open, tei: TeiSettings, chunker: ChunkerSettings) -> None:
        """`open_model` raises DependencyError, or ConfigurationError for chunks that are not for
        that model.
        """
        self._open = open_model
        self._tei = tei
        self._chunker = chunker
        self._models: dict[tuple[str, ...], Model] = {}
        self._opening: dict[tuple[str, ...], asyncio.Lock] = {}
        self._probes: dict[str | None, tuple[int, ...]] = {}  # ids of PROBE, by tokenizer

    async def open_default(self) -> Model:
        """The model of WEBHOOK_TEI_URL. Raises DependencyError, ConfigurationError."""
        return await self._opened(self._tei, await self._shape(self._chunker))

    async def of(self, target: Target) -> Model:
        """The model of a target. Raises DependencyError if its servers are unavailable or do not
        fit its chunks.
        """
        tei = (
            self._tei
            if target.tei_url is None
            else msgspec.structs.replace(self._tei, tei_url=target.tei_url)
        )
        try:
            shape = await self._shape(target.chunking(self._chunker))
            model = await self._opened(tei, shape)
            model.fit(shape)
        except ConfigurationError as error:  # a person must act; no document is at fault
            raise DependencyError("tei", str(error)) from error
        return model

    async def _opened(self, tei: TeiSettings, shape: ChunkShape) -> Model:
        servers = tuple(sorted(tei.tei_urls))
        if servers not in self._models:
            async with self._opening.setdefault(servers, asyncio.Lock()):
                if servers not in self._models:
                    self._models[servers] = await self._open(tei, shape)
        return self._models[servers]

    async def _shape(self, chunker: ChunkerSettings) -> ChunkShape:
        if chunker.tokenizer not in self._probes:
            tokenizer = await asyncio.to_thread(load_tokenizer, chunker.tokenizer)
            self._probes[chunker.tokenizer] = tuple(tokenizer.encode(PROBE).ids)
        return ChunkShape(
            max_tokens=chunker.max_chunk_tokens, probe_ids=self._probes[chunker.tokenizer]
        )
