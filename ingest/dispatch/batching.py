"""How much may be released, and which of it travels in one batch message. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec
from msgspec import UNSET

from ingest.dispatch.release import Released
from shared.pipeline.lanes import CONGESTED_MESSAGES, SPARSE_MESSAGES, Lane
from shared.pipeline.messages import DocumentRef, Header
from shared.pipeline.stages import FIRST_STAGE


def may_overtake(lane: int, above: int) -> bool:
    """Whether small sources of a lane travel in the lane above, by how many messages are under way in both.

    A lane's streams are served in order: behind a crawl that fills them a source of a few documents would wait
    for all of that. fq_codel (RFC 8290) gives sparse flows the same start.
    """
    return lane > CONGESTED_MESSAGES and above < SPARSE_MESSAGES


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How many batch messages of a lane may be released."""

    messages: int
    deletes_only: bool = False


def room_for(*, chunks: int, deletes: int) -> Room:
    """The room of a lane, from what its chunk stream and its index stream have room for.

    Deletes get through while TEI, say, is away and the chunk stream full. While the index stream is full nothing is
    released: all of it would end up there.
    """
    if chunks == 0:
        return Room(messages=deletes, deletes_only=True)
    return Room(messages=min(chunks, deletes))


def messages_of(items: Sequence[Released], lane: Lane, number: int, size: int) -> Iterator[tuple[str, Header]]:
    """Stream and header of each batch message, of at most `size` documents. Items come sorted by target and action.

    A message is of one domain, but for what is left over at the end of each: pages of a site share texts.
    """
    for (target, action), group in groupby(items, key=lambda item: (item.target, item.action)):
        for documents in _by_domain([_ref(item, number) for item in group], size):
            yield FIRST_STAGE[action].stream(lane), Header(target=target, lane=lane, documents=documents)


def _by_domain(refs: Sequence[DocumentRef], size: int) -> Iterator[tuple[DocumentRef, ...]]:
    left_over: list[DocumentRef] = []
    for _, group in groupby(refs, key=lambda ref: ref.domain):
        of_domain = tuple(group)
        full = len(of_domain) // size * size
        yield from (of_domain[start : start + size] for start in range(0, full, size))
        left_over += of_domain[full:]
    yield from (tuple(left_over[start : start + size]) for start in range(0, len(left_over), size))


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
        traceparent=item.traceparent or UNSET,
    )
