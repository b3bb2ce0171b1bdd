"""A stream entry as it was read, not decoded yet, and the consumer that reads it."""

from collections.abc import Mapping

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import summarize_header
from shared.pipeline.stages import StageName


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery of one entry to this consumer."""

    stream: str
    lane: Lane
    id: str
    header: bytes | None  # None: the field is missing
    body: bytes
    is_newer: bool = False  # of a later release than this one
    documents: int = 1
    deliveries: int = 1  # this one and those carried over a split included


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of one consumer: its group is that of the stage."""

    stage: StageName
    name: str  # in the group; each process has a new one
    lease: float  # seconds; an entry that is idle for longer may be reclaimed by another consumer


def entry_of(
    stage: StageName, lane: Lane, entry_id: str, fields: Mapping[bytes, bytes], deliveries: int
) -> Entry:
    """Make an entry of what Redis returned.

    `deliveries` of its id are added to those that its header carries.
    """
    header = fields.get(b"h")
    summary = summarize_header(header)
    return Entry(
        stream=stage.stream(lane),
        lane=lane,
        id=entry_id,
        header=header,
        body=fields.get(b"b", b""),
        is_newer=summary.is_newer,
        documents=len(summary.documents),
        deliveries=deliveries + summary.deliveries,
    )
