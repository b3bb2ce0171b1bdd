"""Pending entries that would not be reclaimed for as long as Redis' clock was ahead when they were delivered.

Redis counts an entry's idle time from its delivery by the clock, and shows 0 as long as that lies in the future. So
one that is idle for 0 ms at every look for a whole lease was left by its owner: what is renewed gets older in between.
"""

from collections.abc import Iterable
from typing import Any

_LOOKS = 3  # at least: one look may meet the very millisecond of a renewal


class Undated:
    """What was seen of one stream's pending entries."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[tuple[bytes, bytes], tuple[float, int]] = {}  # id, consumer -> first look, looks

    def look(self, pending: Iterable[dict[str, Any]], now: float) -> list[bytes]:
        """The ids that are to be reclaimed, of rows as XPENDING gives them; `now` is in seconds of any clock."""
        fresh = [(row["message_id"], row["consumer"]) for row in pending if row["time_since_delivered"] == 0]
        before = self._seen
        self._seen = {key: (first, looks + 1) for key in fresh for first, looks in (before.get(key, (now, 0)),)}
        return [key[0] for key, (first, looks) in self._seen.items() if looks >= _LOOKS and now - first >= self._lease]
