"""The backlog: nothing twice, nothing lost, no lane and no document starves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.backlog import Backlog, share_out
from embedder.packing import TextInput
from embedder.submission import Submission
from shared.messages import Lane

documents = st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 40)), max_size=20)


def submission(count: int) -> Submission:
    return Submission([TextInput(str(index), 1) for index in range(count)], dimension=2)


@settings(deadline=None)
@given(documents, st.integers(1, 10), st.integers(1, 64))
async def test_every_text_is_taken_once(documents: list[tuple[Lane, int]], turn: int, count: int) -> None:
    backlog = Backlog(turn)
    submissions = [submission(size) for _, size in documents]
    for each, (lane, _) in zip(submissions, documents, strict=True):
        backlog.add(each, lane)
    total = sum(size for _, size in documents)
    assert len(backlog) == total
    taken: Counter[tuple[int, int]] = Counter()
    while pieces := backlog.take(count):
        assert len(pieces) == min(count, total - taken.total())
        taken.update((submissions.index(piece.submission), piece.index) for piece in pieces)
    expected = {(number, index): 1 for number, (_, size) in enumerate(documents) for index in range(size)}
    assert taken == expected


async def test_full_lanes_share_six_to_three_to_one() -> None:
    backlog = Backlog(turn=4)
    lanes = {lane: submission(1000) for lane in Lane}
    for lane, each in lanes.items():
        backlog.add(each, lane)
    taken = Counter(piece.submission for piece in backlog.take(100))
    assert [taken[lanes[lane]] for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW)] == [60, 30, 10]


@settings(deadline=None)
@given(st.fixed_dictionaries({lane: st.integers(0, 200) for lane in Lane}), st.integers(3, 300))
def test_no_place_is_left_empty_and_no_lane_starves(waiting: dict[Lane, int], count: int) -> None:
    quotas = share_out(waiting, count)
    assert sum(quotas.values()) == min(count, sum(waiting.values()))
    for lane, quota in quotas.items():
        assert min(1, waiting[lane]) <= quota <= waiting[lane]


async def test_a_lane_alone_gets_everything() -> None:
    backlog = Backlog(turn=4)
    backlog.add(submission(500), Lane.LOW)
    assert len(backlog.take(100)) == 100


async def test_a_big_document_does_not_keep_a_small_one_waiting() -> None:
    backlog = Backlog(turn=4)
    big, small = submission(1000), submission(3)
    backlog.add(big, Lane.NORMAL)
    backlog.add(small, Lane.NORMAL)
    assert [piece.submission for piece in backlog.take(8)] == [big] * 4 + [small] * 3 + [big]
    assert [piece.submission for piece in backlog.take(8)] == [big] * 8


async def test_what_is_discarded_is_not_taken() -> None:
    backlog = Backlog(turn=4)
    gone, kept = submission(10), submission(2)
    backlog.add(gone, Lane.HIGH)
    backlog.add(kept, Lane.HIGH)
    backlog.take(4)
    backlog.discard(gone, Lane.HIGH)
    backlog.discard(gone, Lane.HIGH)
    assert len(backlog) == 2
    assert {piece.submission for piece in backlog.take(100)} == {kept}
