"""The adaptive limit against simulated servers: it settles near the best, never starves, and comes back gently."""

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.concurrency import AdaptiveLimit, Observation

FULL = 32  # inputs of each request
PAUSE = 0.1  # seconds from a refusal to the next try
TOKENS = 32 * 200


class Simulation:
    """A sender that always has work, a server that is played by `serve`, and time that is simulated."""

    def __init__(self, limit: AdaptiveLimit, serve: "Serve") -> None:
        self.limit = limit
        self.serve = serve
        self.now = 0.0
        self.requests = 0  # in work at the server; who is refused pauses and keeps its permits
        self.in_flight = 0  # inputs
        self.succeeded: list[float] = []  # times
        self.refused: list[float] = []
        self.limits: list[tuple[float, int]] = []
        self._ends: list[tuple[float, int, float, str]] = []
        self._number = itertools.count()

    def run(self, seconds: float) -> None:
        """Send as much as the limit allows, until so many seconds have passed."""
        end = self.now + seconds
        while self.now < end:
            while not self.in_flight or self.in_flight + FULL <= self.limit.limit:
                self._send()
            self._finish()

    def rate(self, seconds: float) -> float:
        """Requests a second that succeeded in the last seconds."""
        return sum(time > self.now - seconds for time in self.succeeded) / seconds

    def _send(self) -> None:
        self.in_flight += FULL
        duration, answer = self.serve(self.requests + 1, self.now)
        self.requests += answer == "ok"
        heapq.heappush(self._ends, (self.now + duration, next(self._number), self.now, answer))

    def _finish(self) -> None:
        self.now, _, started, answer = heapq.heappop(self._ends)
        seen = Observation(
            now=self.now, duration_s=self.now - started, tokens=TOKENS, in_flight=self.in_flight,
            is_overloaded=answer == "429", is_failed=answer == "away",
        )  # fmt: skip
        self.limit.observe(seen)
        self.requests -= answer == "ok"
        self.in_flight -= FULL
        self.limits.append((self.now, self.limit.limit))
        {"ok": self.succeeded, "429": self.refused, "away": []}[answer].append(self.now)


Serve = Callable[[int, float], tuple[float, str]]  # requests in flight and time -> seconds and answer


def refusing(capacity: int, seconds: float = 0.164) -> Serve:
    """So many at once, then 429."""
    return lambda requests, now: (seconds, "ok") if requests <= capacity else (PAUSE, "429")


def queueing(capacity: int, seconds: float = 0.52) -> Serve:
    """So many at once; what is more waits, so that the round trip grows with it."""
    return lambda requests, now: (seconds * max(1.0, requests / capacity), "ok")


def new_limit(requests: int = 80) -> AdaptiveLimit:
    return AdaptiveLimit(request=FULL, ceiling=requests * FULL)


@pytest.mark.parametrize("capacity", [1, 2, 4, 8, 16, 40])
def test_a_server_that_refuses_is_used_to_its_limit_with_few_refusals(capacity: int) -> None:
    simulation = Simulation(new_limit(), refusing(capacity))
    simulation.run(60)
    assert simulation.rate(40) >= 0.9 * capacity / 0.164
    late = [time for time in simulation.refused if time > 20]
    assert len(late) <= 0.02 * simulation.rate(40) * 40 + 40


@pytest.mark.parametrize("capacity", [1, 4, 8, 20])
def test_a_server_that_slows_down_is_kept_busy_and_not_flooded(capacity: int) -> None:
    simulation = Simulation(new_limit(), queueing(capacity))
    simulation.run(120)
    assert capacity * FULL <= simulation.limit.limit <= max(2.2 * capacity, capacity + 5) * FULL


def test_a_server_that_never_slows_down_is_used_to_the_ceiling() -> None:
    simulation = Simulation(new_limit(requests=50), lambda requests, now: (0.5, "ok"))
    simulation.run(20)
    assert simulation.limit.limit == 50 * FULL


def test_more_room_is_found_when_it_comes() -> None:
    simulation = Simulation(new_limit(), refusing(4))
    simulation.run(60)
    simulation.serve = refusing(12)
    simulation.run(60)
    assert simulation.rate(20) >= 0.9 * 12 / 0.164


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = AdaptiveLimit(request=FULL, ceiling=4000 * FULL)
    before = limit.limit
    for second in range(100):
        limit.observe(Observation(now=float(second), duration_s=0.1, tokens=TOKENS, in_flight=FULL))
    assert limit.limit == before


def test_small_requests_are_not_taken_for_a_fast_server() -> None:
    limit = AdaptiveLimit(request=FULL, ceiling=64 * FULL)
    for second in range(300):
        small = second % 2
        seen = Observation(
            now=second / 10, duration_s=0.1 if small else 0.5, tokens=20 if small else TOKENS, in_flight=limit.limit
        )
        limit.observe(seen)
    assert limit.limit == 64 * FULL


@pytest.mark.parametrize("capacity", [4, 8])
def test_after_an_outage_the_rate_comes_back_without_a_storm(capacity: int) -> None:
    simulation = Simulation(new_limit(), refusing(capacity))
    simulation.run(60)
    normal = simulation.rate(20)
    simulation.serve = lambda requests, now: (0.05, "away")
    simulation.run(10)
    simulation.serve = refusing(capacity)
    simulation.run(2)
    assert 0 < simulation.rate(2) <= 1.5 * normal
    simulation.run(20)
    assert simulation.rate(10) >= 0.9 * normal


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5000), st.sampled_from(["ok", "429", "away"])), max_size=200),
    st.integers(1, 64),
    st.integers(1, 600),
)
def test_the_limit_is_never_below_one_request_nor_above_the_ceiling(
    calls: list[tuple[float, int, str]], request: int, ceiling: int
) -> None:
    limit = AdaptiveLimit(request=request, ceiling=ceiling)
    now = 0.0
    for duration, in_flight, answer in calls:
        now += duration / 3
        seen = Observation(
            now=now, duration_s=duration, tokens=in_flight, in_flight=in_flight,
            is_overloaded=answer == "429", is_failed=answer == "away",
        )  # fmt: skip
        limit.observe(seen)
        assert request <= limit.limit <= max(request, ceiling)
