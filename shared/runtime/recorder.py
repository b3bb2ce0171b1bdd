"""Writes outcomes to Postgres, and makes the messages for the next stage."""

from collections.abc import Sequence

import stamina
import structlog

from shared.jobs.model import FinishedJob
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.progress import Ended, Ending, Postponed, Progress
from shared.pipeline.entries import Entry
from shared.pipeline.failpoints import failpoint
from shared.pipeline.messages import (
    DocumentRef,
    EncodedMessage,
    Header,
    body_parts,
    pack,
)
from shared.pipeline.outcomes import Dead, Done, Emit, ItemState, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.runtime.stage import Document
from shared.service.clients import is_postgres_unavailable
from shared.service.metrics import Metrics

log = structlog.get_logger()

# Of a message with several documents. Far below `proto-max-bulk-len` (512 MB by default), and what
# Redis takes within a small part of the time limit of a command.
MESSAGE_BYTES = 16 * 1024 * 1024

# While Postgres is unavailable, keep the entry and its slot, and repeat until it works or the lease
# is lost.
patiently = stamina.retry(
    on=is_postgres_unavailable, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0
)


class Recorder:
    """Records the work of one stage.

    Every method waits while Postgres is unavailable, and may be repeated.
    """

    def __init__(
        self,
        progress: Progress,
        operations: OperationLog,
        metrics: Metrics,
        stage: StageName,
        message_bytes: int = MESSAGE_BYTES,
    ) -> None:
        self._progress = progress
        self._operations = operations
        self._metrics = metrics
        self._stage = stage
        self._message_bytes = message_bytes

    @patiently
    async def begin(self, entry: Entry, header: Header) -> list[Document]:
        """Note that the work starts, and return the documents that are current.

        A document that a later release has replaced is left out. Raises MalformedMessageError if
        the body does not fit the header.
        """
        failpoint(self._stage, "taken")
        parts = body_parts(entry.body, len(header.documents))
        attempts = await self._progress.start(header.documents)
        failpoint(self._stage, "begun")
        return [
            Document(ref=ref, body=parts[index], attempts=attempts[index])
            for index, ref in enumerate(header.documents)
            if index in attempts
        ]

    @patiently
    async def record(
        self,
        documents: Sequence[Document],
        outcomes: Sequence[Outcome],
        header: Header,
        deliveries: int,
    ) -> list[EncodedMessage]:
        """Write all outcomes; return the messages for the next stage, none if nothing goes on."""
        failpoint(self._stage, "handled")
        pairs = list(zip((document.ref for document in documents), outcomes, strict=True))
        ended = [_ended(ref, o) for ref, o in pairs if isinstance(o, Done | Dead)]
        if ended:
            self._report(await self._progress.end(ended, deliveries))
        retries = [
            Postponed(ref=ref, delay=o.delay, reason=o.reason, attempts=o.attempts)
            for ref, o in pairs
            if isinstance(o, Retry)
        ]
        if retries:
            await self._progress.postpone(retries)
            failpoint(self._stage, "postponed")
        for _, outcome in pairs:
            self._metrics.documents.labels(self._stage, type(outcome).__name__.lower()).inc()
            self._count_saved(outcome)
        emits = [(ref, o) for ref, o in pairs if isinstance(o, Emit)]
        messages = await self._pass_on(emits, header) if emits else []
        failpoint(self._stage, "recorded")
        return messages

    @patiently
    async def dead_letter(self, entry: Entry, reason: str) -> None:
        """Keep an entry that cannot be read as a raw dead letter."""
        log.error(
            "Entry cannot be read",
            stage=self._stage,
            entry_id=entry.id,
            stream=entry.stream,
            error=reason,
        )
        await self._progress.dead_letter(entry, reason)
        failpoint(self._stage, "dead_lettered")

    async def _pass_on(
        self, emits: Sequence[tuple[DocumentRef, Emit]], header: Header
    ) -> list[EncodedMessage]:
        counts = [(emit.chunks, emit.cached) for _, emit in emits]
        current = await self._progress.pass_on([ref for ref, _ in emits], counts)
        onward = [(ref, emit.body) for index, (ref, emit) in enumerate(emits) if index in current]
        next_header = Header(
            target=header.target, lane=header.lane, documents=(), traceparent=header.traceparent
        )
        return pack(next_header, onward, self._message_bytes)

    def _count_saved(self, outcome: Outcome) -> None:
        if isinstance(outcome, Emit) and outcome.cached:
            self._metrics.tei.inputs_saved.labels("cache").inc(outcome.cached)
        elif isinstance(outcome, Done) and outcome.state is ItemState.UNCHANGED:
            self._metrics.tei.inputs_saved.labels("unchanged").inc(outcome.chunks or 0)

    def _report(self, ending: Ending) -> None:
        for item, duration_ms, queued_ms in ending.items:
            self._report_item(item, duration_ms, queued_ms)
        for job in ending.jobs:
            report_job(job, self._operations)

    def _report_item(self, item: Ended, duration_ms: float, queued_ms: float) -> None:
        ref = item.ref
        bound = log.bind(
            job_id=ref.job_id, crawl_id=ref.crawl_id, document_id=ref.document_id, url=ref.url
        )
        if item.state is ItemState.FAILED:
            bound.error(
                "Document indexing failed in batch",
                stage=self._stage,
                code=item.code,
                error=item.error,
            )
        elif item.state is ItemState.INDEXED:
            bound.info("Indexing job completed", chunks=item.chunks, duration_ms=duration_ms)
        self._metrics.indexing_seconds.observe(duration_ms / 1000)
        self._metrics.waiting_seconds.observe(queued_ms / 1000)
        self._operations.add(
            Operation(
                operation_type="document_indexing",
                operation_name=item.state,
                duration_ms=duration_ms,
                success=item.state is not ItemState.FAILED,
                error_message=item.error,
                job_id=ref.job_id,
                crawl_id=ref.crawl_id,
                document_url=ref.url,
                metadata={"queued_ms": queued_ms, "chunks": item.chunks, "stage": self._stage},
            )
        )


def report_job(job: FinishedJob, operations: OperationLog) -> None:
    """Report a finished job: its canonical log line and its row of operation_metrics."""
    log.info(
        "Batch processing complete",
        job_id=job.job_id,
        crawl_id=job.crawl_id,
        status=job.status,
        total=job.total,
        success=job.succeeded,
        failed=job.failed,
        cancelled=job.cancelled,
        duration_ms=job.duration_ms,
        chunks=job.chunks,
        inputs_saved=job.inputs_saved,
    )
    operations.add(
        Operation(
            operation_type="batch_processing",
            operation_name=job.kind,
            duration_ms=job.duration_ms,
            success=job.failed == 0,
            job_id=job.job_id,
            crawl_id=job.crawl_id,
            request_id=job.request_id,
            metadata={
                "total": job.total,
                "success": job.succeeded,
                "failed": job.failed,
                "cancelled": job.cancelled,
                "chunks": job.chunks,
                "inputs_saved": job.inputs_saved,
            },
        )
    )


def _ended(ref: DocumentRef, outcome: Done | Dead) -> Ended:
    if isinstance(outcome, Done):
        return Ended(ref=ref, state=outcome.state, chunks=outcome.chunks)
    return Ended(
        ref=ref,
        state=ItemState.FAILED,
        code=outcome.code,
        error=outcome.error,
        attempts=outcome.attempts,
    )
