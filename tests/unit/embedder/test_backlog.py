"""The backlog: nothing twice, nothing lost, no lane and no document starves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.backlog import Backlog, share_out
from embedder.packing import TextInput
from embedder.submission import Submission, Wanted
from shared.messages import Lane

documents = st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 40)), max_size=20)


def submission(count: int, name: str = "") -> Submission:
    """A document whose texts begin with its name."""
    made = Submission(count, dimension=2)
    for index in range(count):
        Wanted(TextInput(f"{name} {index}", 1)).add(made, index)
    return made


def names(texts: list[Wanted]) -> list[str]:
    """Whose texts these are."""
    return [wanted.input.text.partition(" ")[0] for wanted in texts]


@settings(deadline=None)
@given(documents, st.integers(1, 10), st.integers(1, 64))
async def test_every_text_is_taken_once(documents: list[tuple[Lane, int]], turn: int, count: int) -> None:
    backlog = Backlog()
    for number, (lane, size) in enumerate(documents):
        backlog.add(submission(size, str(number)), lane)
    total = sum(size for _, size in documents)
    assert len(backlog) == total
    taken: Counter[str] = Counter()
    while texts := backlog.take(count, turn):
        assert len(texts) == min(count, total - taken.total())
        taken.update(wanted.input.text for wanted in texts)
    expected = {f"{number} {index}": 1 for number, (_, size) in enumerate(documents) for index in range(size)}
    assert taken == expected


async def test_full_lanes_share_six_to_three_to_one() -> None:
    backlog = Backlog()
    for lane in Lane:
        backlog.add(submission(1000, lane), lane)
    taken = Counter(names(backlog.take(100, turn=4)))
    assert [taken[lane] for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW)] == [60, 30, 10]


@settings(deadline=None)
@given(st.fixed_dictionaries({lane: st.integers(0, 200) for lane in Lane}), st.integers(3, 300))
def test_no_place_is_left_empty_and_no_lane_starves(waiting: dict[Lane, int], count: int) -> None:
    quotas = share_out(waiting, count)
    assert sum(quotas.values()) == min(count, sum(waiting.values()))
    for lane, quota in quotas.items():
        assert min(1, waiting[lane]) <= quota <= waiting[lane]


async def test_a_lane_alone_gets_everything() -> None:
    backlog = Backlog()
    backlog.add(submission(500), Lane.LOW)
    assert len(backlog.take(100, turn=4)) == 100


async def test_a_big_document_does_not_keep_a_small_one_waiting() -> None:
    backlog = Backlog()
    big, small = submission(1000, "big"), submission(3, "small")
    backlog.add(big, Lane.NORMAL)
    backlog.add(small, Lane.NORMAL)
    assert names(backlog.take(8, turn=4)) == ["big"] * 4 + ["small"] * 3 + ["big"]
    assert names(backlog.take(8, turn=4)) == ["big"] * 8


async def test_what_is_discarded_is_not_taken() -> None:
    backlog = Backlog()
    gone, kept = submission(10, "gone"), submission(2, "kept")
    backlog.add(gone, Lane.HIGH)
    backlog.add(kept, Lane.HIGH)
    backlog.take(4, turn=4)
    backlog.discard(gone, Lane.HIGH)
    backlog.discard(gone, Lane.HIGH)
    assert len(backlog) == 2
    assert set(names(backlog.take(100, turn=4))) == {"kept"}


async def test_a_text_of_two_documents_is_sent_by_the_first_to_come_to_it() -> None:
    backlog = Backlog()
    low, high = submission(3, "low"), Submission(2, dimension=2)
    low.texts[2].add(high, 0)
    Wanted(TextInput("high 1", 1)).add(high, 1)
    backlog.add(low, Lane.LOW)
    backlog.add(high, Lane.HIGH)
    assert len(backlog) == 5
    assert [wanted.input.text for wanted in backlog.take(1, turn=4)] == ["low 2"], "the high lane is served first"
    assert (low.waiting, high.waiting) == (2, 1)
    assert [wanted.input.text for wanted in backlog.take(10, turn=4)] == ["high 1", "low 0", "low 1"]
    assert len(backlog) == 0
