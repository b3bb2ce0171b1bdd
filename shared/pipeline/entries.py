"""A stream entry as it was read, before anybody decodes it, and the place where it is read."""

from collections.abc import Mapping

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import read_outline
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


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a consumer reads."""

    stage: StageName
    consumer: str
    lease: float  # seconds; an entry idle for longer is reclaimed


def entry_of(stage: StageName, lane: Lane, entry_id: str, fields: Mapping[bytes, bytes], deliveries: int) -> Entry:
    """An entry as Redis gave it; `deliveries` of this id, those that its header carries are added."""
    header = fields.get(b"h")
    outline = read_outline(header)
    return Entry(
        stream=stage.stream(lane), lane=lane, id=entry_id, header=header, body=fields.get(b"b", b""),
        is_newer=outline.is_newer, documents=len(outline.documents), deliveries=deliveries + outline.deliveries,
    )  # fmt: skip
