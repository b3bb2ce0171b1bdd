"""Where vectors come from: the cache for texts that were embedded before, TEI for the others."""

from collections.abc import Mapping, Sequence

import numpy as np

from embedder.batcher import EmbeddingBatcher
from embedder.cache import EmbeddingCache
from embedder.sending.packing import TextInput
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import ChunkedDocument
from shared.runtime.time_limit import TimeLimit
from shared.tei.client import Vectors


class VectorSource:
    """The cache and the batcher of one model."""

    def __init__(self, batcher: EmbeddingBatcher, cache: EmbeddingCache) -> None:
        self._batcher = batcher
        self._cache = cache

    async def known(self, documents: Sequence[ChunkedDocument]) -> Mapping[str, Vectors]:
        """The vectors of their texts that the cache has, by text."""
        return await self._cache.get(
            [chunk.embedded_text for document in documents for chunk in document.chunks]
        )

    async def of(
        self, document: ChunkedDocument, known: Mapping[str, Vectors], lane: Lane, limit: TimeLimit
    ) -> tuple[Vectors, int]:
        """A document's vectors, `float32[chunks, dimension]`, and how many of them were known.

        Raises what the batcher raises.
        """
        inputs = [TextInput(chunk.embedded_text, chunk.tokens) for chunk in document.chunks]
        vectors = np.empty((len(inputs), self._batcher.dimension), dtype=np.float32)
        missing: list[int] = []
        for index, each in enumerate(inputs):
            if each.text in known:
                vectors[index] = known[each.text]
            else:
                missing.append(index)
        vectors[missing] = await self._batcher.embed(
            [inputs[index] for index in missing], lane, limit
        )
        return vectors, len(inputs) - len(missing)
