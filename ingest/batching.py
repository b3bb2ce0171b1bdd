"""Which released items travel in one batch message. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from ingest.release import Released
from shared.messages import Action, DocumentRef, Header, Lane
from shared.streams import StageName

AUTO = "auto"


def batch_size(setting: str, depth: int) -> int:
    """Documents per batch message: the number that was set, or by the depth of the queue."""
    if setting != AUTO:
        return int(setting)
    if depth < 10:
        return 2
    return 4 if depth < 100 else 8


def messages_of(items: Sequence[Released], lane: Lane, number: int, size: int) -> Iterator[tuple[str, Header]]:
    """Stream and header of each batch message. Items come sorted by target, action and domain, and stay together."""
    for (target, action), group in groupby(items, key=lambda item: (item.target, item.action)):
        stage = StageName.INDEXER if action is Action.DELETE else StageName.CHUNKER
        refs = [_ref(item, number) for item in group]
        for start in range(0, len(refs), size):
            documents = tuple(refs[start : start + size])
            yield stage.stream(lane), Header(target=target, lane=lane, documents=documents)


def _ref(item: Released, number: int) -> DocumentRef:
    return DocumentRef(
        job_id=item.job_id,
        position=item.position,
        release=number,
        document_id=item.document_id,
        version=item.version,
        url=item.url,
        action=item.action,
        domain=item.domain,
        crawl_id=item.crawl_id,
    )
