"""From when documents came and went to how busy the stages were."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.doctor.load import Message, Stay, busy_seconds, measure, messages
from shared.pipeline.stages import StageName

CHUNKER, EMBEDDER = StageName.CHUNKER, StageName.EMBEDDER
START = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def stay(start: float, end: float | None, worker: str = "w1") -> Stay:
    finished_at = None if end is None else START + dt.timedelta(seconds=end)
    return Stay(
        worker=worker, started_at=START + dt.timedelta(seconds=start), finished_at=finished_at
    )


def message(start: float, end: float) -> Message:
    return Message(worker="w", start=start, end=end, documents=1)


def test_documents_that_start_and_end_together_were_one_message() -> None:
    stays = [
        stay(0.0, 2.0),
        stay(0.0001, 2.0001),
        stay(0.0002, 2.05),
        stay(0.5, 2.0),
        stay(0.0, 2.0, "w2"),
    ]
    assert [(each.worker, each.documents) for each in messages(stays)] == [
        ("w1", 3),
        ("w1", 1),
        ("w2", 1),
    ]


def test_messages_that_start_together_and_end_apart_are_two() -> None:
    assert [each.documents for each in messages([stay(0.0, 1.0), stay(0.0001, 2.0)])] == [1, 1]


def test_messages_that_start_together_are_told_apart_by_their_ends() -> None:
    stays = [stay(0.0, 1.0), stay(0.001, 2.0), stay(0.002, 1.0), stay(0.003, 2.0)]
    assert [(each.documents, each.seconds) for each in messages(stays)] == [
        (2, 1.0),
        (2, pytest.approx(1.999)),
    ]


def test_a_worker_that_was_restarted_is_one_worker() -> None:
    stays = [stay(0.0, 4.0, "old"), stay(5.0, 10.0, "new"), stay(0.0, 10.0, "other")]
    load = measure([{EMBEDDER: each} for each in stays], concurrency=1)
    assert load is not None
    assert load.stages[0].workers == 2


def test_a_document_that_has_not_left_a_stage_does_not_count() -> None:
    assert messages([stay(0.0, None)]) == []


def test_overlaps_count_once_and_pauses_do_not() -> None:
    assert busy_seconds([message(0, 4), message(1, 2), message(3, 6), message(10, 11)]) == 7


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=20))
def test_busy_seconds_are_those_that_some_message_covers(spans: list[tuple[int, int]]) -> None:
    covered = {second for start, length in spans for second in range(start, start + length)}
    assert busy_seconds([message(start, start + length) for start, length in spans]) == len(covered)


def test_a_load_has_rates_and_shares_of_the_slots() -> None:
    """Two embedders with two slots each; one slot is in use for ten seconds, by messages of 5 s."""
    documents = [
        {CHUNKER: stay(0.0, 0.5), EMBEDDER: stay(0.0, 5.0, "e1")},
        {CHUNKER: stay(5.0, 5.5), EMBEDDER: stay(5.0, 10.0, "e2")},
    ]
    load = measure(documents, concurrency=2)
    assert load is not None
    assert (load.start, load.end, load.active_s) == (START, START + dt.timedelta(seconds=10), 10.0)
    chunker, embedder = load.stages
    assert (embedder.stage, embedder.workers, embedder.messages, embedder.mean_s) == (
        EMBEDDER,
        2,
        2,
        5.0,
    )
    assert (embedder.documents_per_s, embedder.utilisation) == (0.2, 0.25)
    assert chunker.utilisation == pytest.approx(0.05)


def test_nothing_that_ended_makes_no_load() -> None:
    assert measure([], 10) is None
    assert measure([{CHUNKER: stay(0.0, None)}], 10) is None
