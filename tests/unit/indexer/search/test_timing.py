import pytest

from indexer.search.timing import Part, SearchTiming


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rounds_of_a_part_add_up_and_the_header_names_every_part() -> None:
    clock = Clock()
    timing = SearchTiming(clock)
    for _ in range(2):
        with timing.of(Part.DENSE):
            clock.now += 0.25
    with timing.of(Part.TEXTS):
        clock.now += 0.125
    clock.now += 1
    assert timing.seconds == {Part.DENSE: 0.5, Part.TEXTS: 0.125}
    assert timing.header() == "dense;dur=500.000, texts;dur=125.000, total;dur=1625.000"


def test_a_part_that_fails_is_counted_too() -> None:
    clock = Clock()
    timing = SearchTiming(clock)

    def fail() -> None:
        with timing.of(Part.EMBEDDING):
            clock.now += 5
            raise ValueError("away")

    with pytest.raises(ValueError, match="away"):
        fail()
    assert timing.seconds == {Part.EMBEDDING: 5}
