"""The embed stage: a vector for every chunk, from the TEI of its target."""

from embedder.models import Model, Models
from shared.jobs.targets import Target, Targets
from shared.pipeline.messages import ChunkedDocument, EmbeddedDocument, MalformedMessageError, decode_part
from shared.pipeline.outcomes import Batch, Emit, Outcome, Work
from shared.pipeline.stages import StageName
from shared.runtime.batch import BatchWorker
from shared.runtime.faults.failures import Failures
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError
from shared.service.settings import RuntimeSettings


class EmbedStage:
    """Turns chunks into vectors. The batcher of a model packs the texts of all documents in hand, across batches."""

    name = StageName.EMBEDDER

    def __init__(self, models: Models, targets: Targets, failures: Failures, settings: RuntimeSettings) -> None:
        self._models = models
        self._targets = targets
        self._failures = failures
        self._settings = settings

    async def handle(self, batch: Batch) -> list[Outcome]:
        target = await self._targets.get(batch.target)
        model = await self._models.of(target)
        documents = {work.ref.version: _decoded(work) for work in batch.works}
        known = await model.vectors.known([d for d in documents.values() if isinstance(d, ChunkedDocument)])

        async def handle_document(work: Work) -> Outcome:
            document = documents[work.ref.version]
            if isinstance(document, MalformedMessageError):
                raise document
            async with TimeLimit(self._settings.document_timeout) as limit:
                vectors, cached = await model.vectors.of(document, known, batch.lane, limit)
            dimension = vectors.shape[1]
            await self._settle(target, model)
            packed = vectors.astype("<f4", copy=False).tobytes()
            embedded = EmbeddedDocument(document=document, vectors=packed, dimension=dimension)
            return Emit(embedded, len(document.chunks), cached)

        worker = BatchWorker(handle_document, limit=len(batch.works), on_error=self._failures)
        return await worker.process_batch(batch.works)

    async def _settle(self, target: Target, model: Model) -> None:
        """See to it that all vectors of a target are of one model."""
        made = (model.served.info.model_id, model.served.dimension)
        if (target.model, target.dimension) == made:
            return
        settled = await self._targets.settle(target.target, *made)
        if (settled.model, settled.dimension) != made:
            raise DependencyError(
                "tei",
                f"it serves {made[0]} ({made[1]} dimensions), but {target.target} holds vectors of {settled.model} "
                f"({settled.dimension}): point WEBHOOK_TEI_URL to that model, or reindex",
            )


def _decoded(work: Work) -> ChunkedDocument | MalformedMessageError:
    try:
        return decode_part(work.body, ChunkedDocument)
    except MalformedMessageError as error:
        return error
