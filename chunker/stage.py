"""The chunk stage: loads a document's text, cleans it, leaves it out if it is unchanged, and splits it."""

import time

import msgspec
import structlog

from chunker.fingerprint import content_hash
from chunker.recipes import Recipe, Recipes
from chunker.splitting.cleaning import clean
from chunker.splitting.threads import Threads
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.payloads import load_payloads
from shared.jobs.registry import Registry, Seen
from shared.jobs.targets import Target, Targets
from shared.pipeline.failpoints import failpoint
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import ChunkedDocument, StoredDocument
from shared.pipeline.outcomes import Batch, Done, Emit, ItemState, Outcome, Work
from shared.pipeline.stages import StageName
from shared.runtime.batch import BatchWorker
from shared.runtime.faults.failures import Failures
from shared.runtime.time_limit import TimeLimit
from shared.service.clients import PostgresPool
from shared.service.errors import RejectedError
from shared.service.settings import RuntimeSettings

log = structlog.get_logger()


class TextPool(msgspec.Struct, frozen=True):
    """What a process has for working on texts."""

    recipes: Recipes
    threads: Threads


class ChunkStage:
    """Turns texts into chunks."""

    name = StageName.CHUNKER

    def __init__(
        self,
        pool: PostgresPool,
        texts: TextPool,
        operations: OperationLog,
        failures: Failures,
        settings: RuntimeSettings,
    ) -> None:
        self._pool = pool
        self._registry = Registry(pool)
        self._targets = Targets(pool)
        self._texts = texts
        self._operations = operations
        self._failures = failures
        self._settings = settings

    async def handle(self, batch: Batch) -> list[Outcome]:
        log.info("Starting batch processing", batch_size=len(batch.works), entry_id=batch.entry_id)
        log.debug("Service pool reused", entry_id=batch.entry_id)
        documents = await load_payloads(self._pool, [work.ref.version for work in batch.works])
        target = await self._targets.get(batch.target)
        recipe = await self._texts.recipes.of(target)

        async def handle_document(work: Work) -> Outcome:
            ref = work.ref
            log.info("Starting indexing job", url=ref.url, job_id=ref.job_id, crawl_id=ref.crawl_id)
            document = documents.get(ref.version)
            if document is None:
                raise RejectedError("payload_missing", "its text is not kept any more: send the document again")
            return await self._chunk(work, document, target, recipe, batch.lane)

        worker = BatchWorker(handle_document, limit=len(batch.works), on_error=self._failures)
        return await worker.process_batch(batch.works)

    async def _chunk(self, work: Work, document: StoredDocument, target: Target, recipe: Recipe, lane: Lane) -> Outcome:
        started = time.monotonic()
        ref = work.ref
        fingerprint = recipe.fingerprint(target)
        async with TimeLimit(self._settings.document_timeout) as limit:
            cleaned = await self._texts.threads.run(lane, limit, clean, document.markdown)
            seen = Seen(
                document_id=ref.document_id,
                version=ref.version,
                content_hash=content_hash(ref.url, document.page, cleaned),
                fingerprint=fingerprint,
                crawl_id=ref.crawl_id,
            )
            unchanged = await self._registry.mark_unchanged(target.target, seen)
            if unchanged is not None:
                failpoint("chunker", "unchanged")
                return Done(ItemState.UNCHANGED, unchanged)
            chunks = await self._texts.threads.run(lane, limit, recipe.splitter.split, cleaned, document.page.title)
        if not chunks:
            raise RejectedError("empty_markdown", "the markdown has no text")
        self._note(work, len(chunks), len(document.markdown), time.monotonic() - started)
        chunked = ChunkedDocument(
            page=document.page, content_hash=seen.content_hash, fingerprint=fingerprint, chunks=chunks
        )
        return Emit(chunked, len(chunks))

    def _note(self, work: Work, chunks: int, characters: int, seconds: float) -> None:
        self._operations.add(
            Operation(
                operation_type="chunking", operation_name="split", duration_ms=seconds * 1000,
                job_id=work.ref.job_id, crawl_id=work.ref.crawl_id, document_url=work.ref.url,
                metadata={"chunks": chunks, "characters": characters},
            )
        )  # fmt: skip
