"""The chunk stage: loads a document's text, leaves it out if it is unchanged, cleans and splits it."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor

import structlog

from chunker.fingerprint import content_hash
from chunker.splitting import Splitter
from shared.clients import PostgresPool
from shared.errors import RejectedError
from shared.jobs.model import ItemState
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.payloads import load_payloads
from shared.jobs.registry import Registry, Seen
from shared.jobs.targets import Targets
from shared.messages import Chunk, ChunkedDocument, StoredDocument
from shared.runtime.batch import BatchWorker
from shared.runtime.failures import Failures
from shared.runtime.stage import Batch, Done, Emit, Outcome, Work
from shared.settings import RuntimeSettings
from shared.streams import StageName

log = structlog.get_logger()


class ChunkStage:
    """Turns texts into chunks."""

    name = StageName.CHUNKER

    def __init__(
        self, pool: PostgresPool, splitter: Splitter, executor: Executor, operations: OperationLog, failures: Failures,
        settings: RuntimeSettings,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._registry = Registry(pool)
        self._targets = Targets(pool)
        self._splitter = splitter
        self._executor = executor
        self._operations = operations
        self._failures = failures
        self._settings = settings

    async def handle(self, batch: Batch) -> list[Outcome]:
        log.info("Starting batch processing", batch_size=len(batch.works), entry_id=batch.entry_id)
        texts = await load_payloads(self._pool, [work.ref.version for work in batch.works])
        target = await self._targets.get(batch.target)
        fingerprint = self._splitter.fingerprint(target.generation)
        hashes = {version: content_hash(_url(batch, version), d.page, d.markdown) for version, d in texts.items()}
        unchanged = await self._registry.mark_unchanged(batch.target, fingerprint, _seen(batch, hashes))

        async def handle_document(work: Work) -> Outcome:
            log.info("Starting indexing job", url=work.ref.url, job_id=work.ref.job_id, crawl_id=work.ref.crawl_id)
            chunks = unchanged.get((work.ref.document_id, work.ref.version))
            if chunks is not None:
                return Done(ItemState.UNCHANGED, chunks)
            document = texts.get(work.ref.version)
            if document is None:
                raise RejectedError("payload_missing", "its text is not kept any more: send the document again")
            return Emit(
                ChunkedDocument(
                    page=document.page,
                    content_hash=hashes[work.ref.version],
                    fingerprint=fingerprint,
                    chunks=(split := await self._split(work, document)),
                ),
                len(split),
            )

        worker = BatchWorker(
            handle_document,
            limit=self._settings.stage_concurrency,
            on_error=self._failures,
            timeout=self._settings.document_timeout,
        )
        return await worker.process_batch(batch.works)

    async def _split(self, work: Work, document: StoredDocument) -> tuple[Chunk, ...]:
        """Split in a thread: the splitter releases the GIL, and a thread that is stuck blocks nobody else."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        chunks = await loop.run_in_executor(
            self._executor, self._splitter.split, document.markdown, document.page.title
        )
        if not chunks:
            raise RejectedError("empty_markdown", "the markdown has no text")
        self._operations.add(
            Operation(
                operation_type="chunking", operation_name="split", duration_ms=(time.monotonic() - started) * 1000,
                job_id=work.ref.job_id, crawl_id=work.ref.crawl_id, document_url=work.ref.url,
                metadata={"chunks": len(chunks), "characters": len(document.markdown)},
            )
        )  # fmt: skip
        return chunks


def _url(batch: Batch, version: int) -> str:
    return next(work.ref.url for work in batch.works if work.ref.version == version)


def _seen(batch: Batch, hashes: Mapping[int, bytes]) -> list[Seen]:
    """The latest version of each document: only that one can be unchanged."""
    latest = {work.ref.document_id: work.ref for work in sorted(batch.works, key=lambda work: work.ref.version)}
    return [
        Seen(
            document_id=ref.document_id,
            version=ref.version,
            content_hash=hashes[ref.version],
            crawl_id=ref.crawl_id,
        )
        for ref in latest.values()
        if ref.version in hashes
    ]
