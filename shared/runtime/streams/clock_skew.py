"""Finds pending entries that Redis would not let anybody reclaim, because its clock was set back.

Redis counts an entry's idle time from the time of its delivery, and reports 0 while that time lies
in the future. An entry whose lease is renewed gets older between renewals. So an entry with an idle
time of 0 ms at every look for a whole lease has been abandoned.
"""

from collections.abc import Iterable
from typing import Any

_LOOKS = 3  # at least: one look may fall into the millisecond of a renewal


class ClockSkew:
    """What was seen of one stream's pending entries."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        # Id, consumer -> first look, looks.
        self._seen: dict[tuple[bytes, bytes], tuple[float, int]] = {}

    def abandoned(self, pending: Iterable[dict[str, Any]], now: float) -> list[bytes]:
        """Look at rows of XPENDING; return the ids to reclaim.

        `now` is in seconds of any steady clock.
        """
        fresh = [
            (row["message_id"], row["consumer"])
            for row in pending
            if row["time_since_delivered"] == 0
        ]
        before = self._seen
        self._seen = {
            key: (first, looks + 1)
            for key in fresh
            for first, looks in (before.get(key, (now, 0)),)
        }
        return [
            key[0]
            for key, (first, looks) in self._seen.items()
            if looks >= _LOOKS and now - first >= self._lease
        ]
