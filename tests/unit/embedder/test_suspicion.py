"""Whom TEI's breakdowns are put down to: company halves until it is proved, success clears, memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from embedder import suspicion as module
from embedder.suspicion import Suspicion


@given(st.lists(st.text(max_size=3), max_size=20), st.lists(st.lists(st.text(max_size=3), min_size=1), max_size=8))
def test_groups_hold_every_index_once(texts: list[str], broken: list[list[str]]) -> None:
    suspicion = Suspicion()
    for request in broken:
        suspicion.broke(request)
    groups = suspicion.groups(texts)
    assert sorted(index for group in groups for index in group) == list(range(len(texts)))
    assert all(groups)


def test_company_halves_with_every_breakdown() -> None:
    suspicion, texts = Suspicion(), [str(n) for n in range(8)]
    sizes = []
    for _ in range(4):
        group = [texts[index] for index in suspicion.groups(texts)[0]]
        sizes.append(len(group))
        assert not suspicion.is_to_be_alone(group) or len(group) == 1
        suspicion.broke(group)
    assert sizes == [8, 4, 2, 1]


def test_success_clears() -> None:
    suspicion = Suspicion()
    suspicion.broke(["a"])
    assert suspicion.is_to_be_alone(["a"])
    suspicion.passed(["a"])
    assert not suspicion.is_to_be_alone(["a"])
    assert suspicion.groups(["a", "b"]) == [[0, 1]]


def test_proof_is_told_once() -> None:
    suspicion = Suspicion()
    suspicion.broke(["a"])
    assert not suspicion.is_proved("a")
    suspicion.broke(["a"], alone=True)
    assert suspicion.is_proved("a")
    suspicion.told("a")
    assert not suspicion.is_proved("a")
    assert suspicion.is_to_be_alone(["a"])


def test_the_oldest_suspicion_is_forgotten_first() -> None:
    suspicion = Suspicion()
    suspicion.broke(["the first"])
    suspicion.broke([str(n) for n in range(module.MAX_REMEMBERED)])
    assert not suspicion.is_to_be_alone(["the first"])
    assert suspicion.groups(["0", "the first", "1"]) == [[0, 2], [1]]
