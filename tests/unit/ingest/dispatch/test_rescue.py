"""The last resort takes nothing for lost that may only be waiting."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.dispatch.rescue import stuck_after

seconds = st.floats(0, 1e6)


def test_with_empty_streams_an_item_is_stuck_after_three_timeouts() -> None:
    assert stuck_after(0, 600) == 1800


@given(seconds, st.floats(1, 3600), seconds)
def test_an_item_whose_own_entry_is_the_oldest_is_never_stuck(
    idle: float, timeout: float, delay: float
) -> None:
    """Its entry was added `delay` after its last progress, if Redis was unavailable meanwhile."""
    added = idle - min(delay, 2 * timeout, idle)
    assert idle <= stuck_after(added, timeout) + 1e-6
