"""How often and how long a callback is tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.upkeep.callbacks import Schedule

SCHEDULE = Schedule()
HOUR = 3600.0


@given(st.integers(1, SCHEDULE.tries - 1), st.floats(0, 1))
def test_a_delay_is_uniform_up_to_its_bound(attempts: int, jitter: float) -> None:
    delay = SCHEDULE.delay(attempts, jitter)
    assert delay is not None
    assert 0 <= delay <= min(SCHEDULE.longest_delay, SCHEDULE.first_delay * 2 ** (attempts - 1))


def test_bounds_double_up_to_an_hour() -> None:
    delays = [SCHEDULE.delay(attempts, 1.0) for attempts in (1, 2, 3, 10, 14)]
    assert delays == [10.0, 20.0, 40.0, HOUR, HOUR]


@pytest.mark.parametrize("attempts", [15, 16, 1000])
def test_after_the_last_attempt_there_is_no_delay(attempts: int) -> None:
    assert SCHEDULE.delay(attempts, 0.5) is None


def test_all_attempts_take_hours_but_not_a_day() -> None:
    longest = sum(SCHEDULE.delay(attempts, 1.0) or 0 for attempts in range(1, SCHEDULE.tries))
    assert 6 * HOUR < longest < 7 * HOUR
