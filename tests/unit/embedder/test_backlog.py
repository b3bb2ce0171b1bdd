"""The backlog: nothing twice, nothing lost, no document starves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.backlog import Backlog
from embedder.sending.packing import TextInput
from embedder.submission import Submission, Wanted

documents = st.lists(st.integers(1, 40), max_size=20)


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
async def test_every_text_is_taken_once(documents: list[int], turn: int, count: int) -> None:
    backlog = Backlog()
    for number, size in enumerate(documents):
        backlog.add(submission(size, str(number)))
    total = sum(documents)
    assert len(backlog) == total
    taken: Counter[str] = Counter()
    while texts := backlog.take(count, turn):
        assert len(texts) == min(count, total - taken.total())
        taken.update(wanted.input.text for wanted in texts)
    expected = {
        f"{number} {index}": 1 for number, size in enumerate(documents) for index in range(size)
    }
    assert taken == expected


async def test_a_big_document_does_not_keep_a_small_one_waiting() -> None:
    backlog = Backlog()
    big, small = submission(1000, "big"), submission(3, "small")
    backlog.add(big)
    backlog.add(small)
    assert names(backlog.take(8, turn=4)) == ["big"] * 4 + ["small"] * 3 + ["big"]
    assert names(backlog.take(8, turn=4)) == ["big"] * 8


async def test_what_is_discarded_is_not_taken() -> None:
    backlog = Backlog()
    gone, kept = submission(10, "gone"), submission(2, "kept")
    backlog.add(gone)
    backlog.add(kept)
    backlog.take(4, turn=4)
    backlog.discard(gone)
    backlog.discard(gone)
    assert len(backlog) == 2
    assert set(names(backlog.take(100, turn=4))) == {"kept"}


async def test_a_text_of_two_documents_is_sent_by_the_first_to_come_to_it() -> None:
    backlog, other = Backlog(), Backlog()
    first, second = Submission(2, dimension=2), submission(3, "second")
    second.texts[2].add(first, 0)
    Wanted(TextInput("first 1", 1)).add(first, 1)
    backlog.add(first)
    other.add(second)
    assert (len(backlog), len(other)) == (2, 3)
    assert [wanted.input.text for wanted in backlog.take(1, turn=4)] == ["second 2"]
    assert (len(backlog), len(other)) == (1, 2)
    assert [wanted.input.text for wanted in other.take(10, turn=4)] == ["second 0", "second 1"]
    assert [wanted.input.text for wanted in backlog.take(10, turn=4)] == ["first 1"]
