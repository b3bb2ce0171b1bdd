"""The embed stage: a vector for every chunk, from TEI."""

from embedder.batcher import EmbeddingBatcher
from embedder.packing import TextInput
from shared.errors import DependencyError
from shared.jobs.targets import Targets
from shared.messages import ChunkedDocument, EmbeddedDocument, decode_part
from shared.runtime.batch import BatchWorker
from shared.runtime.failures import Failures
from shared.runtime.stage import Batch, Emit, Outcome, Work
from shared.settings import RuntimeSettings
from shared.streams import StageName


class EmbedStage:
    """Turns chunks into vectors. The batcher packs the texts of all documents in hand, across batches."""

    name = StageName.EMBEDDER

    def __init__(
        self, batcher: EmbeddingBatcher, targets: Targets, model: str, failures: Failures, settings: RuntimeSettings
    ) -> None:
        self._batcher = batcher
        self._targets = targets
        self._model = model
        self._failures = failures
        self._settings = settings
        self._settled: set[tuple[str, int]] = set()  # targets that are known to be of this model and dimension

    async def handle(self, batch: Batch) -> list[Outcome]:
        async def handle_document(work: Work) -> Outcome:
            document = decode_part(work.body, ChunkedDocument)
            vectors = await self._batcher.embed(
                [TextInput(chunk.embedded_text, chunk.tokens) for chunk in document.chunks], batch.lane
            )
            dimension = vectors.shape[1]
            await self._settle(batch.target, dimension)
            packed = vectors.astype("<f4", copy=False).tobytes()
            embedded = EmbeddedDocument(document=document, vectors=packed, dimension=dimension)
            return Emit(embedded, len(document.chunks))

        worker = BatchWorker(
            handle_document,
            limit=len(batch.works),
            on_error=self._failures,
            timeout=self._settings.document_timeout,
        )
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
