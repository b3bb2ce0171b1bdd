"""The texts of a batch: loaded from Postgres, cleaned and split in the chunker's threads."""

from collections.abc import Mapping

import msgspec

from chunker.fingerprint import content_hash
from chunker.splitting.cleaning import clean
from chunker.splitting.threads import Threads
from chunker.target_splitters import TargetSplitter, TargetSplitters
from shared.jobs.payloads import load_payloads
from shared.jobs.registry import Seen
from shared.pipeline.messages import Chunk, Page, StoredDocument
from shared.runtime.stage import Batch, Document
from shared.service.clients import PostgresPool
from shared.service.errors import RejectedError


class CleanText(msgspec.Struct, frozen=True, kw_only=True):
    """The text of one document as it is split."""

    page: Page
    markdown: str
    seen: Seen  # what tells whether the document changed
    characters: int  # before cleaning


class Texts:
    """Where the chunker gets its texts."""

    def __init__(self, pool: PostgresPool, splitters: TargetSplitters, threads: Threads) -> None:
        self._pool = pool
        self._splitters = splitters
        self._threads = threads

    async def load(self, batch: Batch) -> "BatchTexts":
        """Load the texts of a batch. Raises DependencyError if Postgres is unavailable."""
        stored = await load_payloads(
            self._pool, [document.ref.version for document in batch.documents]
        )
        return BatchTexts(batch, stored, await self._splitters.of(batch.target), self._threads)


class BatchTexts:
    """The texts of one batch.

    Work on a text waits for a thread; that time does not count against its limit.
    """

    def __init__(
        self,
        batch: Batch,
        stored: Mapping[int, StoredDocument],
        splitter: TargetSplitter,
        threads: Threads,
    ) -> None:
        self._batch = batch
        self._stored = stored
        self._splitter = splitter
        self._threads = threads

    @property
    def target(self) -> str:
        return self._batch.target.target

    async def cleaned(self, document: Document) -> CleanText:
        """Clean the text of a document. Raises RejectedError if the text is not kept any more."""
        ref = document.ref
        stored = self._stored.get(ref.version)
        if stored is None:
            raise RejectedError(
                "payload_missing", "its text is not kept any more: send the document again"
            )
        markdown = await self._threads.run(self._batch.lane, document.limit, clean, stored.markdown)
        seen = Seen(
            document_id=ref.document_id,
            version=ref.version,
            content_hash=content_hash(ref.url, stored.page, markdown),
            fingerprint=self._splitter.fingerprint(self._batch.target),
            crawl_id=ref.crawl_id,
        )
        return CleanText(
            page=stored.page, markdown=markdown, seen=seen, characters=len(stored.markdown)
        )

    async def split(self, document: Document, text: CleanText) -> tuple[Chunk, ...]:
        """Split the text of a document. Raises RejectedError if it has no text."""
        split = self._splitter.splitter.split
        chunks = await self._threads.run(
            self._batch.lane, document.limit, split, text.markdown, text.page.title
        )
        if not chunks:
            raise RejectedError("empty_markdown", "the markdown has no text")
        return chunks
