"""How many inputs one process keeps in flight at one TEI server, and how many a request holds.
Pure: no clock, no I/O.

A delay-based congestion window after TCP Vegas, FAST and Swift (docs/scaling.md). TEI has one queue
for all clients and says how long a request's inputs waited in it. The window follows that delay to
a short target, so that the queue never runs empty and never grows long. Processes that know nothing
of each other see the same delay and reach equal windows.
"""

import math

import msgspec

from shared.tei.client import ServerTiming

# Inputs, before anything is known. With 64 processes at 1 input/s even one is a queue of a minute.
# A server that does not bound its batches has a GPU, as a rule.
START = 1.0
START_UNBOUNDED = 8.0
SMALLEST = 1 / 64  # below one input the process pauses between requests
GAIN = 0.5  # share of the way to the target that one round trip goes

# Without a queue the window grows by this factor in a round trip, up to so many times what was in
# flight (RFC 9293 grows a window that is used, and no other). Requests that the server computes
# side by side do not delay each other.
SLOW_START = 2.0
SLOW_START_SIDE_BY_SIDE = 4.0
# Of scale and service time: with less delay there is no queue, and the window doubles in a round
# trip.
EMPTY = 0.1

# The target delay grows with the square root of the latency: a fixed time would idle slow servers
# and flood fast ones.
SHORTEST_DELAY_S = 0.1
SCALE_S = 0.13
# Larger windows have lower targets (Swift's flow scaling): at the same delay they shrink while
# smaller ones grow.
TARGET_FACTOR = 1.2
LOWEST_FACTOR = 0.35
LESS_PER_E_FOLD = 0.15
MORE_BELOW_ONE = 0.3
GAIN_BELOW_ONE = 0.175  # there a single answer is a whole round trip
# A request that is sent after a pause finds one input more in the queue than one that replaces an
# answered request.
PAUSED_ALLOWANCE = 1.5

STEPS = 3  # requests in a window: the queue is refilled before it is empty
REQUEST_S = 0.6  # of TEI's time for one request; a question may have to wait for all of it

REFUSED_FACTOR = 0.8  # after 429
FAILED_FACTOR = 0.5  # after no usable answer
PROBING_INPUTS = 2.0  # growth in a round trip beyond a window that was refused

_FORGET = 0.005  # a round trip: a server that became slower for good is believed after some minutes
# Without timings the shortest latency is only seen while the queue is empty.
_ROUND_TRIPS_TO_REST = 15
_RESTS = 2


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was answered with vectors."""

    inputs: int
    tokens: int
    duration_s: float
    in_flight: int  # inputs at the server just before the answer, its own among them
    timing: ServerTiming | None  # None if the server does not say


class Window:
    """The window of one process at one server."""

    def __init__(
        self, *, largest_request: int, ceiling: int, batch_inputs: int | None = None
    ) -> None:
        """`ceiling` bounds the inputs in flight; the server computes `batch_inputs` at once, None
        if unknown.
        """
        self._largest_request = largest_request
        self._ceiling = float(max(1, ceiling))
        self._size = min(START if batch_inputs else START_UNBOUNDED, self._ceiling)
        self._delay = _Delay(batch_inputs)
        self._request = max(1.0, self._size / STEPS)
        self._peak = 0.0  # inputs in flight, in about the last round trip
        self._proven = math.inf  # beyond it, inputs were refused
        self._cut_at = -math.inf
        self._round_trips = 0.0  # since the last rest
        self._rests = 0  # answers until the rest ends

    @property
    def inputs(self) -> int:
        """How many inputs may be in flight now; at least 1."""
        return self.request_inputs if self._rests else max(1, int(self._size))

    @property
    def request_inputs(self) -> int:
        """How many inputs the next request may hold."""
        return max(1, min(self._largest_request, int(self._request), math.ceil(self._size / STEPS)))

    @property
    def pause_s(self) -> float:
        """Seconds from an answer to the next request: 0, unless the window is below one input."""
        if self._size >= 1:
            return 0.0
        # The latency that is aimed at, where the queue is still long: that of a start must not
        # last.
        latency_s = min(self._delay.latency_s, 2 * (self._target_s() + 2 * self._delay.service_s))
        return latency_s * (1 / self._size - 1)

    def answered(self, answer: Answer) -> None:
        """Adjust the window to the delay that a request has met."""
        # The answers of one round trip have shares that add up to 1.
        share = min(1.0, answer.inputs / max(self._size, answer.in_flight))
        self._peak = max(float(answer.in_flight), self._peak * (1 - share / 2))
        self._delay.measure(answer, share)
        self._fit_request(answer, share)
        if answer.timing is None and self._is_resting(answer, share):
            return
        self._adjust(answer, share)

    def refused(self, now: float, duration_s: float) -> None:
        """TEI had no room (429): shrink, once for all requests of one round trip, and grow again
        with care.
        """
        if self._cut(REFUSED_FACTOR, now, duration_s):
            self._proven = self._size

    def failed(self, now: float, duration_s: float) -> None:
        """The server gave no usable answer: shrink, once for all requests of one round trip."""
        self._cut(FAILED_FACTOR, now, duration_s)

    def _adjust(self, answer: Answer, share: float) -> None:
        target, scale = self._target_s(), self._scale_s()
        delay = self._delay.seconds
        if self._size < 1:
            delay -= (1 - self._size) * self._delay.service_s * PAUSED_ALLOWANCE
        gain = GAIN_BELOW_ONE if self._size < 1 else GAIN
        ahead = math.log((target + scale) / (max(0.0, delay) + scale))
        if ahead >= 0:
            # Unless the window was full, the delay says nothing about a larger one.
            if self._is_queue_empty and self._size >= 1:
                if self._size < self._slow_start * self._peak:
                    self._grow(self._slow_start**share, share)
            elif self._size < 1 or answer.in_flight > self._size - self.request_inputs:
                self._grow(math.exp(share * gain * ahead), share)
            return
        shrunk = self._size * math.exp(share * max(ahead, gain * ahead * (1 - 0.3 * ahead)))
        if self._delay.is_unavoidable:
            shrunk = max(shrunk, min(1.0, self._size))
        self._size = max(SMALLEST, shrunk)

    def _target_s(self) -> float:
        per_e_fold = MORE_BELOW_ONE if self._size < 1 else LESS_PER_E_FOLD
        factor = TARGET_FACTOR - per_e_fold * math.log(max(self._size, 0.25))
        return self._scale_s() * max(LOWEST_FACTOR, factor)

    def _scale_s(self) -> float:
        latency_s, service_s = self._delay.latency_s, self._delay.service_s
        return max(SHORTEST_DELAY_S, math.sqrt(SCALE_S * latency_s), service_s)

    @property
    def _slow_start(self) -> float:
        return SLOW_START_SIDE_BY_SIDE if self._delay.is_side_by_side else SLOW_START

    @property
    def _is_queue_empty(self) -> bool:
        return self._delay.seconds < EMPTY * (self._scale_s() + self._delay.service_s)

    def _grow(self, factor: float, share: float) -> None:
        grown = self._size * factor
        if grown > self._proven:
            grown = max(min(grown, self._size + share * PROBING_INPUTS), min(grown, self._proven))
        self._size = min(self._ceiling, grown)

    def _cut(self, factor: float, now: float, duration_s: float) -> bool:
        if now - duration_s < self._cut_at:
            return False
        self._cut_at = now
        self._size = max(min(1.0, self._size), self._size * factor)
        return True

    def _fit_request(self, answer: Answer, share: float) -> None:
        """Let requests be as large as TEI does in about half a second."""
        fitting = answer.inputs * REQUEST_S / max(1e-6, self._delay.own_s)
        # Where a batch has a fixed cost, more inputs take hardly longer.
        if fitting >= answer.inputs:
            larger = 2.0 if self._delay.is_side_by_side else 1.25
            fitting = max(fitting, answer.inputs + 1, answer.inputs * larger)
        if fitting <= self._request:
            self._request = max(1.0, self._request + share * (fitting - self._request) / 2)
        elif answer.inputs >= self.request_inputs - 1:
            grown = self._request * self._slow_start**share
            self._request = min(grown, fitting, float(self._largest_request))

    def _is_resting(self, answer: Answer, share: float) -> bool:
        """Whether the window is kept small for a moment, to see the latency without a queue
        (LEDBAT++).
        """
        if self._rests:
            self._rests -= answer.in_flight <= self.request_inputs
            return True
        self._round_trips = 0.0 if self._is_queue_empty else self._round_trips + share
        if self._round_trips >= _ROUND_TRIPS_TO_REST:
            self._round_trips, self._rests = 0.0, _RESTS
        return False


class _Delay:
    """Queue time in an answer: how much longer it took than the request would take alone."""

    def __init__(self, batch_inputs: int | None) -> None:
        self._batch_inputs = batch_inputs
        # By size class of tokens: seconds, tokens.
        self._shortest: dict[int, tuple[float, int]] = {}
        self.latency_s = 0.0  # waiting and computing, mean of the last round trips
        self.service_s = 0.0  # computing, as short as it was ever seen for a request of this size
        self.seconds = 0.0  # of the last answer: all that is above that
        # Of the last answer: from the start of its first input to the end of its last.
        self.own_s = 0.0
        self.is_side_by_side = False  # the server has no queue: it computes requests side by side
        # It is the time of one input: a smaller window would not shorten it.
        self.is_unavoidable = False

    def measure(self, answer: Answer, share: float) -> None:
        """Take an answer into account."""
        if answer.timing is None:
            waited, latency = self._without_timing(answer, share)
        else:
            waited, latency = self._with_timing(answer, answer.timing, share)
        self.own_s = answer.duration_s - waited
        weight = 1.0 if not self.latency_s else max(0.02, min(0.3, share))
        self.latency_s += weight * (latency - self.latency_s)

    def _with_timing(
        self, answer: Answer, timing: ServerTiming, share: float
    ) -> tuple[float, float]:
        # The header is a mean over the request's inputs, and those of one request wait behind each
        # other.
        batches = answer.inputs / self._batch_inputs if self._batch_inputs else 0.0
        waited = max(0.0, timing.queue_s - timing.inference_s * max(0.0, batches - 1) / 2)
        self.service_s = self._shortest_of(
            answer.tokens // answer.inputs, timing.inference_s, share
        )
        # All that is in the queue once the request has joined it, whatever the size of the request.
        joined = waited + timing.inference_s * batches
        latency = joined + timing.inference_s
        # A server that computes requests side by side has no queue, however long a large request
        # takes.
        is_waiting = waited > EMPTY * timing.inference_s or timing.inference_s > REQUEST_S
        has_queue = self._batch_inputs is not None or is_waiting
        # Embedders that joined late know only full batches: short ones must make no difference
        # between them.
        computing_s = max(0.0, timing.inference_s - max(self.service_s, SHORTEST_DELAY_S))
        self.is_side_by_side = not has_queue
        self.seconds = joined + computing_s if has_queue else 0.0
        self.is_unavoidable = waited < 0.3 * timing.inference_s
        return waited, latency

    def _without_timing(self, answer: Answer, share: float) -> tuple[float, float]:
        self.service_s = self._shortest_of(answer.tokens, answer.duration_s, share)
        self.seconds = answer.duration_s - self.service_s
        self.is_unavoidable = self.seconds < 0.3 * self.service_s
        return self.seconds, answer.duration_s

    def _shortest_of(self, tokens: int, seconds: float, share: float) -> float:
        """The shortest time that requests of so many tokens took; a larger size takes at most its
        multiple.
        """
        size = tokens.bit_length()
        known, of_tokens = self._shortest.get(size, (math.inf, tokens))
        aged = known * (1 + _FORGET * share)
        self._shortest[size] = (seconds, tokens) if seconds < aged else (aged, of_tokens)
        return min(
            shortest * max(1.0, tokens / max(1.0, of)) for shortest, of in self._shortest.values()
        )
