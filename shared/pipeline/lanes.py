"""The table of lanes: how urgent a document is, and what each lane gets."""

import enum
from collections.abc import Collection, Mapping

import msgspec


class Lane(enum.StrEnum):
    """How urgent a document is; each lane has its own stream per stage."""

    HIGH = "high"  # single documents that a person waits for
    NORMAL = "normal"  # crawls
    LOW = "low"  # bulk loads


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one lane."""

    weight: int  # share of a stage's reading, by documents, and of requests to TEI and Qdrant
    reserved_slots: int = 0  # of a process, beside WEBHOOK_STAGE_CONCURRENCY
    reserved_requests: int = 0  # to Qdrant at once, beside those that all lanes share
    mark_share: float = 1.0  # of WEBHOOK_STREAM_ENTRIES and WEBHOOK_STREAM_BYTES


LANES: Mapping[Lane, LaneRow] = {
    Lane.HIGH: LaneRow(
        weight=6,
        reserved_slots=2,  # all others may be held by a crawl for long
        reserved_requests=1,
        mark_share=0.25,  # few entries, so that one that just came is served soon
    ),
    Lane.NORMAL: LaneRow(weight=3),
    Lane.LOW: LaneRow(weight=1),  # a tenth, so that it does not starve
}

# A stream that reached its mark takes no more entries until it is down to this share of the mark.
# What is left keeps the next stage busy until more entries come.
LOW_WATER = 0.75

# Small sources travel one lane higher while their own lane is congested and the one above is sparse
# (messages in all stages). A process works on about 16 messages at once, and 4 delay others little.
CONGESTED_MESSAGES = 16
SPARSE_MESSAGES = 4
SMALL_SOURCE = 8  # a source with fewer documents due is small

RESERVED_REQUESTS = {lane: row.reserved_requests for lane, row in LANES.items()}


class FairLanes:
    """Weighted fair queuing: the next lane is the one with the least service for its weight."""

    def __init__(self) -> None:
        self._finish = dict.fromkeys(Lane, 0.0)  # virtual finish time of each lane
        self._now = 0.0  # virtual time of the lane served last

    def order(self, lanes: Collection[Lane]) -> list[Lane]:
        """Return the lanes in the order in which to try them."""
        return sorted(lanes, key=lambda lane: (self._finish[lane], -LANES[lane].weight))

    def served(self, lane: Lane, documents: int) -> None:
        """Charge a lane for documents that were served."""
        self._now = self._finish[lane]
        self._finish[lane] += documents / LANES[lane].weight

    def found_empty(self, lane: Lane) -> None:
        """Note that a lane is empty: idle lanes accrue no credit."""
        self._finish[lane] = max(self._finish[lane], self._now)
