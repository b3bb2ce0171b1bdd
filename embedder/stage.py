"""The embed stage: a vector for every chunk, from TEI."""

from collections.abc import Mapping, Sequence

import numpy as np

from embedder.batcher import EmbeddingBatcher
from embedder.cache import EmbeddingCache
from embedder.packing import TextInput
from shared.errors import DependencyError
from shared.jobs.targets import Targets
from shared.messages import ChunkedDocument, EmbeddedDocument, Lane, MalformedMessageError, decode_part
from shared.runtime.batch import BatchWorker
from shared.runtime.failures import Failures
from shared.runtime.stage import Batch, Emit, Outcome, Work
from shared.runtime.time_limit import TimeLimit
from shared.settings import RuntimeSettings
from shared.streams import StageName
from shared.tei import Vectors


class VectorSource:
    """Where vectors come from: the cache for texts that were embedded before, TEI for the others."""

    def __init__(self, batcher: EmbeddingBatcher, cache: EmbeddingCache) -> None:
        self._batcher = batcher
        self._cache = cache

    async def known(self, documents: Sequence[ChunkedDocument]) -> Mapping[str, Vectors]:
        """The vectors of their texts that the cache has, by text."""
        return await self._cache.get([chunk.embedded_text for document in documents for chunk in document.chunks])

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
        vectors[missing] = await self._batcher.embed([inputs[index] for index in missing], lane, limit)
        return vectors, len(inputs) - len(missing)


class EmbedStage:
    """Turns chunks into vectors. The batcher packs the texts of all documents in hand, across batches."""

    name = StageName.EMBEDDER

    def __init__(
        self, vectors: VectorSource, targets: Targets, model: str, failures: Failures, settings: RuntimeSettings
    ) -> None:
        self._vectors = vectors
        self._targets = targets
        self._model = model
        self._failures = failures
        self._settings = settings
        self._settled: set[tuple[str, int]] = set()  # targets that are known to be of this model and dimension

    async def handle(self, batch: Batch) -> list[Outcome]:
        documents = {work.ref.version: _decoded(work) for work in batch.works}
        known = await self._vectors.known([d for d in documents.values() if isinstance(d, ChunkedDocument)])

        async def handle_document(work: Work) -> Outcome:
            document = documents[work.ref.version]
            if isinstance(document, MalformedMessageError):
                raise document
            async with TimeLimit(self._settings.document_timeout) as limit:
                vectors, cached = await self._vectors.of(document, known, batch.lane, limit)
            dimension = vectors.shape[1]
            await self._settle(batch.target, dimension)
            packed = vectors.astype("<f4", copy=False).tobytes()
            embedded = EmbeddedDocument(document=document, vectors=packed, dimension=dimension)
            return Emit(embedded, len(document.chunks), cached)

        worker = BatchWorker(handle_document, limit=len(batch.works), on_error=self._failures)
        return await worker.process_batch(batch.works)

    async def _settle(self, target: str, dimension: int) -> None:
        """See to it that all vectors of a target are of one model."""
        if (target, dimension) in self._settled:
            return
        settled = await self._targets.settle(target, self._model, dimension)
        if (settled.model, settled.dimension) != (self._model, dimension):
            raise DependencyError(
                "tei",
                f"it serves {self._model} ({dimension} dimensions), but {target} holds vectors of {settled.model} "
                f"({settled.dimension}): point WEBHOOK_TEI_URL to that model, or reindex",
            )
        self._settled.add((target, dimension))


def _decoded(work: Work) -> ChunkedDocument | MalformedMessageError:
    try:
        return decode_part(work.body, ChunkedDocument)
    except MalformedMessageError as error:
        return error
