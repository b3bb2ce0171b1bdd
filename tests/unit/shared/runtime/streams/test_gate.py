"""Gates: shut at the mark, open again below the low water, by entries and by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.streams.gate import Fill, Mark, mark_of, room_of

MARK = Mark(entries=64, bytes=1000)


def test_a_lane_has_room_up_to_its_mark() -> None:
    assert room_of(MARK, Fill(0, 0), is_shut=False) == 64
    assert room_of(MARK, Fill(63, 999), is_shut=False) == 1
    assert room_of(MARK, Fill(64, 0), is_shut=False) == 0
    assert room_of(MARK, Fill(70, 0), is_shut=False) == 0
    assert room_of(MARK, Fill(1, 1000), is_shut=False) == 0


def test_a_lane_that_was_shut_opens_only_below_the_low_water_of_both() -> None:
    assert room_of(MARK, Fill(48, 0), is_shut=True) == 0
    assert room_of(MARK, Fill(47, 750), is_shut=True) == 0
    assert room_of(MARK, Fill(47, 749), is_shut=True) == 17


@given(st.integers(1, 100), st.integers(1, 10**9), st.booleans())
def test_an_empty_lane_is_never_shut(entries: int, size: int, is_shut: bool) -> None:
    assert room_of(Mark(entries, size), Fill(0, 0), is_shut) == entries


def test_at_one_mark_a_gate_does_not_flap() -> None:
    is_shut, changes = False, 0
    for entries in [60, 64, 63, 64, 62, 63, 50, 47, 48, 60, 63]:
        was, is_shut = is_shut, room_of(MARK, Fill(entries, 0), is_shut) == 0
        changes += was != is_shut
    assert changes == 2


def test_the_high_lane_has_a_quarter_of_its_own_and_vectors_have_twice_the_bytes() -> None:
    index = mark_of(StageName.INDEXER, entries=64, size=128)
    assert index == Mark(64, 256)
    assert index.of(Lane.HIGH) == Mark(16, 64)
    assert index.of(Lane.LOW) == index
