"""Clock skew: entries dated into the future are told from entries whose lease is renewed."""

from typing import Any

from shared.runtime.streams.clock_skew import ClockSkew

LEASE = 3.0


def row(idle_ms: int, consumer: bytes = b"a") -> dict[str, Any]:
    return {
        "message_id": b"1-0",
        "consumer": consumer,
        "time_since_delivered": idle_ms,
        "times_delivered": 1,
    }


def looks(*rows: dict[str, Any], interval: float = 1.5) -> list[list[bytes]]:
    skew = ClockSkew(LEASE)
    return [skew.abandoned([seen], number * interval) for number, seen in enumerate(rows)]


def test_an_entry_that_is_idle_for_0_ms_for_a_whole_lease_is_abandoned() -> None:
    assert looks(row(0), row(0), row(0)) == [[], [], [b"1-0"]]


def test_an_entry_that_gets_older_is_not_abandoned() -> None:
    assert looks(row(0), row(0), row(1), row(0), row(0)) == [[]] * 5


def test_a_new_owner_gets_a_lease_of_its_own() -> None:
    assert looks(row(0), row(0), row(0, b"b"), row(0, b"b"), row(0, b"b")) == [
        [],
        [],
        [],
        [],
        [b"1-0"],
    ]


def test_two_looks_are_not_enough_however_far_apart() -> None:
    assert looks(row(0), row(0), interval=10 * LEASE) == [[], []]


def test_many_looks_within_a_lease_are_not_enough() -> None:
    assert looks(*[row(0)] * 5, interval=LEASE / 10) == [[]] * 5
