"""The size of batch messages: what was set, or what the queue and the clock say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.dispatch.sizing import LONG_S, MAX_DOCUMENTS, MEASURED, SHORT_S, BatchSizes


def after(*seconds: float) -> BatchSizes:
    """Automatic sizes after so many corrections' worth of messages that took so long."""
    sizes = BatchSizes("auto")
    for each in seconds:
        for _ in range(MEASURED):
            sizes.observe(each)
    return sizes


@pytest.mark.parametrize("depth", [0, 1, 10_000])
def test_a_configured_size_is_used_unchanged(depth: int) -> None:
    sizes = BatchSizes("7")
    for _ in range(100):
        sizes.observe(60)
    assert sizes.size(depth) == 7


@pytest.mark.parametrize(
    ("depth", "size"), [(0, 2), (9, 2), (10, 4), (99, 4), (100, 8), (1_000_000, 8)]
)
def test_an_automatic_size_follows_the_depth(depth: int, size: int) -> None:
    assert BatchSizes("auto").size(depth) == size


def test_slow_messages_become_smaller_at_any_depth() -> None:
    assert [after(5).size(depth) for depth in (0, 50, 500)] == [1, 2, 4]
    assert [after(*[60] * 9).size(depth) for depth in (0, 50, 500)] == [1, 1, 1]


def test_fast_messages_become_larger_behind_a_long_queue() -> None:
    assert [after(0.2).size(depth) for depth in (0, 50, 500)] == [2, 4, 16]
    assert after(*[0.01] * 9).size(500) == MAX_DOCUMENTS


def test_messages_in_the_target_range_keep_their_size() -> None:
    assert after(SHORT_S, 2, LONG_S).size(500) == 8


def test_a_few_outliers_change_nothing() -> None:
    sizes = BatchSizes("auto")
    for number in range(100):
        sizes.observe(100.0 if number % 3 == 0 else 2.0)
    assert sizes.size(500) == 8


@given(st.floats(0.001, 2.0), st.floats(0.0, 0.5))
def test_the_time_of_a_message_converges_to_the_target_range_if_it_can(
    per_document: float, fixed: float
) -> None:
    sizes = BatchSizes("auto")
    for _ in range(20 * MEASURED):
        sizes.observe(fixed + per_document * sizes.size(500))
    seconds = fixed + per_document * sizes.size(500)
    assert SHORT_S <= seconds <= LONG_S or sizes.size(500) in {1, MAX_DOCUMENTS}
