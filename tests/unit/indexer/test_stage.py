"""The index stage: what counts against the time limit of a document."""

import asyncio
from typing import Any

import pytest

from indexer.stage import IndexStage
from shared.jobs.targets import Target
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef
from shared.runtime.stage import Batch, Document
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError
from tests.support.virtual_time import in_virtual_time

REF = DocumentRef(
    job_id="job", position=0, release=1, document_id="d", version=1, url="https://example.com/"
)
LIMIT_S = 6.0


class SlowCollections:
    """Qdrant takes ten times the limit of a document to say that it is unavailable."""

    async def encoder(self, target: Target, dimension: int) -> Any:
        await asyncio.sleep(10 * LIMIT_S)
        raise DependencyError("qdrant", "no answer")


@in_virtual_time
async def test_a_slow_collection_does_not_count_against_a_document() -> None:
    collections: Any = SlowCollections()
    stage = IndexStage(collections, {}, operations=None)  # type: ignore[arg-type]
    target = Target(target="docs_1", collection="docs", generation="g")
    body = type("Body", (), {"dimension": 4})
    document = Document(ref=REF, body=body, limit=TimeLimit(LIMIT_S))
    batch = Batch(entry_id="1-0", target=target, lane=Lane.NORMAL, documents=[document])
    with pytest.raises(DependencyError, match="no answer"):
        async with document.limit:
            await stage.handle_document(document, batch)
