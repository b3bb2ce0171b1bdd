"""How much is released, and which items travel together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.dispatch.batching import Room, may_overtake, messages_of, room_for
from ingest.dispatch.release import Released
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action


def item(
    position: int, target: str = "t", action: Action = Action.INDEX, domain: str = "d"
) -> Released:
    return Released(
        job_id="j",
        position=position,
        source="s",
        domain=domain,
        document_id="x",
        version=position + 1,
        url="u",
        action=action,
        crawl_id=None,
        target=target,
    )


@given(st.integers(0, 50), st.integers(1, 9))
def test_every_item_is_in_exactly_one_message_of_at_most_the_size(count: int, size: int) -> None:
    items = [item(i, target="t1" if i < count // 2 else "t2") for i in range(count)]
    messages = list(messages_of(items, Lane.LOW, 5, size))
    assert [ref.position for _, header in messages for ref in header.documents] == list(
        range(count)
    )
    assert all(len(header.documents) <= size for _, header in messages)
    assert all(ref.release == 5 for _, header in messages for ref in header.documents)


def test_a_message_is_of_one_target() -> None:
    messages = list(messages_of([item(0, "a"), item(1, "b")], Lane.LOW, 1, 4))
    assert [header.target for _, header in messages] == ["a", "b"]


def test_deletes_go_straight_to_the_index_stream() -> None:
    messages = list(messages_of([item(0, action=Action.DELETE), item(1)], Lane.HIGH, 1, 4))
    assert [stream for stream, _ in messages] == ["{webhook}:index:high", "{webhook}:chunk:high"]


def test_a_message_has_one_domain_except_for_leftovers() -> None:
    items = [item(n, domain=domain) for n, domain in enumerate("aaaaabbbbbbbc")]
    messages = [
        "".join(ref.domain for ref in header.documents)
        for _, header in messages_of(items, Lane.LOW, 1, 4)
    ]
    assert messages == ["aaaa", "bbbb", "abbb", "c"]


def test_deletes_are_released_while_the_chunk_stream_is_full() -> None:
    assert room_for(chunks=0, deletes=5) == Room(messages=5, deletes_only=True)


def test_nothing_is_released_while_the_last_stream_is_full() -> None:
    assert room_for(chunks=9, deletes=0).messages == 0
    assert room_for(chunks=0, deletes=0).messages == 0
    assert room_for(chunks=9, deletes=5) == Room(messages=5)


@pytest.mark.parametrize(
    ("lane", "above", "expected"),
    [(0, 0, False), (16, 0, False), (17, 3, True), (17, 4, False), (190, 0, True)],
)
def test_small_sources_overtake_in_a_full_lane_while_the_one_above_is_nearly_empty(
    lane: int, above: int, expected: bool
) -> None:
    assert may_overtake(lane, above) is expected
