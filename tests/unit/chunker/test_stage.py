"""The chunk stage: what counts against the time limit of a document."""

import asyncio
from typing import Any

from chunker.stage import ChunkStage
from shared.pipeline.messages import DocumentRef
from shared.pipeline.outcomes import Done, ItemState
from shared.runtime.stage import Document
from shared.runtime.time_limit import TimeLimit
from tests.support.virtual_time import in_virtual_time

REF = DocumentRef(
    job_id="job", position=0, release=1, document_id="d", version=1, url="https://example.com/"
)
LIMIT_S = 6.0


class Texts:
    """One text, that is clean."""

    target = "docs_1"

    async def cleaned(self, document: Document) -> Any:
        return type("Text", (), {"seen": None})


class SlowRegistry:
    """Postgres under load: an answer takes ten times the limit of a document."""

    async def mark_unchanged(self, target: str, seen: object) -> int:
        await asyncio.sleep(10 * LIMIT_S)
        return 3


@in_virtual_time
async def test_a_slow_postgres_does_not_count_against_a_document() -> None:
    fakes: Any = (None, SlowRegistry(), None)
    document, texts = Document(ref=REF, limit=TimeLimit(LIMIT_S)), Texts()
    async with document.limit:
        outcome = await ChunkStage(*fakes).handle_document(document, texts)  # type: ignore[arg-type]
    assert outcome == Done(ItemState.UNCHANGED, 3)
