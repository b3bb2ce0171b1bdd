"""How many inputs one TEI server is sent at once: found by trying, as TCP finds its window. Pure: no clock, no I/O.

After Vector's Adaptive Request Concurrency (additive increase, multiplicative decrease, one adjustment for each round
trip, and growth only while the limit is used), with two differences. A round trip is compared with the shortest that
requests of about its size ever took, since a request of 32 texts takes longer than one of 2. And a limit that was
answered with 429 is remembered and tried again ever more rarely, so that a server at its limit is not asked for more
in every round.
"""

import math

import msgspec

START_REQUESTS = 32  # full requests at once before anything is known; what TEI has no room for comes back as 429
SHRINK = 0.9
SHRINK_AT_START = 0.6  # until the first quiet round: the start may be far above what the server can take
SHRINK_ON_FAILURE = 0.5
LONGEST_PATIENCE = 32  # rounds until a limit that met 429 is tried again

# A round trip of twice the shortest means that as much waits at the server as is in work there: enough to keep it busy.
GROW_BELOW = 1.5
SHRINK_ABOVE = 2.0
# Few requests are always allowed to wait: on short ones jitter alone makes factors of two.
GROW_QUEUE = 2.0
SHRINK_QUEUE = 4.0

_SMOOTHING = 0.4  # weight of a new round trip in the mean that is the length of a round
_FIRST_ROUND_S = 0.25  # until a round trip was measured
_SHORTEST_AGES = 1.001  # each round: a server that became slower for good is believed after some minutes


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One request that ended."""

    now: float  # seconds of any steady clock
    duration_s: float
    tokens: int
    in_flight: int  # inputs at the server just before it ended, its own among them
    is_overloaded: bool = False  # 429
    is_failed: bool = False  # no usable answer: says nothing about speed


class AdaptiveLimit:
    """`limit` is the number of inputs that may be in flight now: from one full request to `ceiling`."""

    def __init__(self, *, request: int, ceiling: int) -> None:
        """`request` is the number of inputs of a full request, the step of growth."""
        self._request = request
        self._ceiling = max(ceiling, request)
        self._limit = float(min(self._ceiling, START_REQUESTS * request))
        self._shortest: dict[int, float] = {}  # seconds, by size class
        self._round_trip_s = 0.0  # mean
        self._round_ends: float | None = None
        self._shrunk_at = -math.inf
        self._round = _Round()
        self._is_starting = True
        self._refused = math.inf  # so many full requests met 429 last
        self._patience = 1  # rounds to stay below that, doubled each time it is met again
        self._rounds_below = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def observe(self, seen: Observation) -> None:
        """Take a request into account; the limit may change at the end of a round."""
        if self._round_ends is None:
            self._round_ends = seen.now + _FIRST_ROUND_S
        if seen.now - seen.duration_s >= self._shrunk_at:  # else it was sent under a limit that is given up already
            self._note(seen)
        if seen.now >= self._round_ends:
            self._adjust(seen.now)
            self._round = _Round()
            self._round_ends = seen.now + (self._round_trip_s or _FIRST_ROUND_S)

    def _note(self, seen: Observation) -> None:
        # "Used" means that another full request would not have found room.
        self._round.is_used |= seen.in_flight > self._limit - self._request
        self._round.is_overloaded |= seen.is_overloaded
        self._round.is_failed |= seen.is_failed
        if not (seen.is_overloaded or seen.is_failed):
            self._measure(seen)

    def _measure(self, seen: Observation) -> None:
        size = max(1, seen.tokens).bit_length()
        shortest = min(self._shortest.get(size, math.inf), seen.duration_s)
        self._shortest[size] = shortest
        self._round.requests += 1
        self._round.slowness += seen.duration_s / shortest if shortest else 1.0
        weight = _SMOOTHING if self._round_trip_s else 1.0
        self._round_trip_s += weight * (seen.duration_s - self._round_trip_s)

    def _adjust(self, now: float) -> None:
        slowness = self._round.slowness / self._round.requests if self._round.requests else 1.0
        waiting = self._limit / self._request * (1 - 1 / slowness)  # requests, by Little's law
        shrink = SHRINK_AT_START if self._is_starting else SHRINK
        if self._round.is_failed:
            self._shrink(SHRINK_ON_FAILURE, now)
        elif self._round.is_overloaded:
            self._remember_refusal()
            self._shrink(shrink, now)
        elif not self._round.is_used:
            return  # says nothing: less was sent than might have been
        elif slowness > SHRINK_ABOVE and waiting > SHRINK_QUEUE:
            self._shrink(shrink, now)
        elif slowness < GROW_BELOW or waiting < GROW_QUEUE:
            self._grow()
            self._is_starting = False
        self._shortest = {size: shortest * _SHORTEST_AGES for size, shortest in self._shortest.items()}

    def _shrink(self, factor: float, now: float) -> None:
        self._shrunk_at = now
        lowered = min(self._limit * factor, self._limit - self._request)
        self._limit = max(float(self._request), lowered)
        self._rounds_below = 0

    def _grow(self) -> None:
        grown = min(float(self._ceiling), self._limit + self._request)
        self._rounds_below += 1
        if grown // self._request >= self._refused and self._rounds_below < self._patience:
            return
        self._limit = grown

    def _remember_refusal(self) -> None:
        requests = self._limit // self._request
        is_met_again = requests >= self._refused
        self._patience = min(LONGEST_PATIENCE, 2 * self._patience) if is_met_again else 2
        self._refused = requests


class _Round(msgspec.Struct):
    """What was seen since the last adjustment."""

    requests: int = 0  # that were answered
    slowness: float = 0.0  # sum of round trips over their shortest
    is_used: bool = False
    is_overloaded: bool = False
    is_failed: bool = False
