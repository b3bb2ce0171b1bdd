"""The embed stage: a vector for every chunk, from the TEI of its target."""

from collections.abc import Mapping
from typing import Never

import msgspec

from embedder.models import Model, Models
from shared.jobs.targets import Target, Targets
from shared.pipeline.messages import EmbeddedDocument
from shared.pipeline.outcomes import Emit, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Batch, Document, Stage
from shared.service.errors import DependencyError
from shared.tei.client import Vectors


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the documents of a batch share."""

    batch: Batch
    model: Model
    known: Mapping[str, Vectors]  # the vectors that the cache has, by text


class EmbedStage(Stage[Prepared, Never]):
    """Turns chunks into vectors. The batcher of a model packs the texts of all documents in flight,
    across batches.
    """

    name = StageName.EMBEDDER

    def __init__(self, models: Models, targets: Targets) -> None:
        self._models = models
        self._targets = targets

    async def prepare(self, batch: Batch) -> Prepared:
        model = await self._models.of(batch.target)
        known = await model.vectors.known([document.body for document in batch.documents])
        return Prepared(batch=batch, model=model, known=known)

    async def handle_document(self, document: Document, prepared: Prepared) -> Outcome:
        batch, model = prepared.batch, prepared.model
        vectors, cached = await model.vectors.of(
            document.body, prepared.known, batch.lane, document.limit
        )
        with document.limit.held():  # the pool of connections has time limits of its own
            await self._settle(batch.target, model)
        packed = vectors.astype("<f4", copy=False).tobytes()
        embedded = EmbeddedDocument(
            document=document.body, vectors=packed, dimension=vectors.shape[1]
        )
        return Emit(embedded, len(document.body.chunks), cached)

    async def is_unavailable(self, service: str, target: Target) -> bool | None:
        return await self._models.is_unavailable(target) if service == "tei" else None

    async def _settle(self, target: Target, model: Model) -> None:
        """Ensure that all vectors of a target are of one model. Raises DependencyError if they
        would not be.
        """
        made = (model.served.info.model_id, model.served.dimension)
        if (target.model, target.dimension) == made:
            return
        settled = await self._targets.settle(target.target, *made)
        if (settled.model, settled.dimension) != made:
            raise DependencyError(
                "tei",
                f"it serves {made[0]} ({made[1]} dimensions), but {target.target} holds vectors of "
                f"{settled.model} "
                f"({settled.dimension}): point WEBHOOK_TEI_URL to that model, or reindex",
            )
