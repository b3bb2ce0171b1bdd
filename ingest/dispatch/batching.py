"""The room of a lane, and the grouping of released items into batch messages. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec
from msgspec import UNSET

from ingest.dispatch.release import Released
from shared.pipeline.lanes import CONGESTED_MESSAGES, SPARSE_MESSAGES, Lane
from shared.pipeline.messages import DocumentRef, Header
from shared.pipeline.stages import FIRST_STAGE


def may_overtake(lane: int, above: int) -> bool:
    """Whether small sources of a lane use the streams of the lane above, given the messages in
    flight in both.

    A stream is served in order: behind a crawl that fills it, a source of a few documents would
    wait for the whole stream. fq_codel (RFC 8290) gives sparse flows the same priority.
    """
    return lane > CONGESTED_MESSAGES and above < SPARSE_MESSAGES


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The number of batch messages of a lane that can be released."""

    messages: int
    deletes_only: bool = False


def room_for(*, chunks: int, deletes: int) -> Room:
    """The room of a lane, from the room of its chunk stream and of its index stream.

    Deletes are released even if the chunk stream is full, for example while TEI is unavailable. If
    the index stream is full, nothing is released: all items would end up in it.
    """
    if chunks == 0:
        return Room(messages=deletes, deletes_only=True)
    return Room(messages=min(chunks, deletes))


def messages_of(
    items: Sequence[Released], lane: Lane, number: int, size: int
) -> Iterator[tuple[str, Header]]:
    """Stream and header of each batch message of at most `size` documents, from items sorted by
    target and action.

    The documents of a message are of one domain, whose pages share texts. Messages of the leftovers
    of each domain mix domains.
    """
    for (target, action), group in groupby(items, key=lambda item: (item.target, item.action)):
        for documents in _by_domain([_ref(item, number) for item in group], size):
            yield (
                FIRST_STAGE[action].stream(lane),
                Header(target=target, lane=lane, documents=documents),
            )


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
