"""The lanes: how urgent a document is, and the share of work that each lane gets."""

import enum
from collections.abc import Collection


class Lane(enum.StrEnum):
    """How urgent a document is; each lane has its own stream per stage."""

    HIGH = "high"  # single documents that somebody waits for
    NORMAL = "normal"  # crawls
    LOW = "low"  # bulk loads


# Shares of a stage's reading, by documents, and of the embedder's requests. None starves: the low lane gets a tenth.
LANE_WEIGHTS = {Lane.HIGH: 6, Lane.NORMAL: 3, Lane.LOW: 1}


class FairLanes:
    """Weighted fair queuing over the lanes: the next lane is the one with the least service for its weight."""

    def __init__(self) -> None:
        self._finish = dict.fromkeys(Lane, 0.0)  # virtual finish time of each lane
        self._now = 0.0  # virtual time of the lane served last

    def order(self, lanes: Collection[Lane]) -> list[Lane]:
        """The lanes in the order in which they are to be tried."""
        return sorted(lanes, key=lambda lane: (self._finish[lane], -LANE_WEIGHTS[lane]))

    def served(self, lane: Lane, documents: int) -> None:
        self._now = self._finish[lane]
        self._finish[lane] += documents / LANE_WEIGHTS[lane]

    def found_empty(self, lane: Lane) -> None:
        """An empty lane saves up no claim for later."""
        self._finish[lane] = max(self._finish[lane], self._now)
