"""The chunk stage: cleans a document's text, and splits it unless it is unchanged."""

import time
from typing import Never

import structlog

from chunker.texts import BatchTexts, Texts
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.registry import Registry
from shared.pipeline.failpoints import failpoint
from shared.pipeline.messages import ChunkedDocument
from shared.pipeline.outcomes import Done, Emit, ItemState, Outcome
from shared.pipeline.stages import StageName
from shared.runtime.stage import Batch, Document, Stage

log = structlog.get_logger()


class ChunkStage(Stage[BatchTexts, Never]):
    """Turns texts into chunks."""

    name = StageName.CHUNKER

    def __init__(self, texts: Texts, registry: Registry, operations: OperationLog) -> None:
        self._texts = texts
        self._registry = registry
        self._operations = operations

    async def prepare(self, batch: Batch) -> BatchTexts:
        log.info(
            "Starting batch processing", batch_size=len(batch.documents), entry_id=batch.entry_id
        )
        log.debug("Service pool reused", entry_id=batch.entry_id)
        return await self._texts.load(batch)

    async def handle_document(self, document: Document, prepared: BatchTexts) -> Outcome:
        ref = document.ref
        log.info("Starting indexing job", url=ref.url, job_id=ref.job_id, crawl_id=ref.crawl_id)
        started = time.monotonic()
        text = await prepared.cleaned(document)
        with document.limit.held():  # the pool of connections has time limits of its own
            unchanged = await self._registry.mark_unchanged(prepared.target, text.seen)
        if unchanged is not None:
            failpoint("chunker", "unchanged")
            return Done(ItemState.UNCHANGED, unchanged)
        chunks = await prepared.split(document, text)
        self._operations.add(
            Operation(
                operation_type="chunking",
                operation_name="split",
                duration_ms=(time.monotonic() - started) * 1000,
                job_id=ref.job_id,
                crawl_id=ref.crawl_id,
                document_url=ref.url,
                metadata={"chunks": len(chunks), "characters": text.characters},
            )
        )
        chunked = ChunkedDocument(
            page=text.page,
            content_hash=text.seen.content_hash,
            fingerprint=text.seen.fingerprint,
            chunks=chunks,
        )
        return Emit(chunked, len(chunks))
