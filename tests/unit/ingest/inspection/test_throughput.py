"""The rate of a counter over the last minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.inspection.throughput import WINDOW, RateWindow


def window(*samples: tuple[float, int]) -> RateWindow:
    made = RateWindow()
    for now, count in samples:
        made.add(now, count)
    return made


@pytest.mark.parametrize("samples", [(), ((0.0, 7),), ((3.0, 7), (3.0, 9))])
def test_the_rate_is_unknown_before_two_samples_at_different_times(
    samples: tuple[tuple[float, int], ...],
) -> None:
    assert window(*samples).per_second is None


def test_the_rate_is_that_of_the_last_minute_only() -> None:
    assert window((0, 0), (30, 6000), (60, 6000), (90, 6060)).per_second == 1.0


def test_a_lower_count_starts_a_new_window() -> None:
    samples = ((0.0, 1000), (5.0, 1100), (10.0, 3))
    assert window(*samples).per_second is None
    assert window(*samples, (15.0, 13)).per_second == 2.0


@given(st.lists(st.tuples(st.floats(0.01, 40), st.integers(0, 1000)), min_size=2, max_size=40))
def test_the_rate_lies_between_the_slowest_and_the_fastest_step(
    steps: list[tuple[float, int]],
) -> None:
    made, now, count = RateWindow(), 0.0, 0
    made.add(now, count)
    for seconds, more in steps:
        now, count = now + seconds, count + more
        made.add(now, count)
    rates = [more / seconds for seconds, more in steps]
    assert made.per_second is not None
    assert min(rates) * (1 - 1e-6) <= made.per_second <= max(rates) * (1 + 1e-6)
    assert WINDOW >= 40  # a step longer than the window would leave one sample
