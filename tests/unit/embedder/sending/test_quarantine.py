"""Quarantine: groups halve until one text is at fault, success releases, memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from embedder.sending import quarantine as module
from embedder.sending.quarantine import Quarantine


@given(
    st.lists(st.text(max_size=3), max_size=20),
    st.lists(st.lists(st.text(max_size=3), min_size=1), max_size=8),
)
def test_groups_hold_every_index_once(texts: list[str], broken: list[list[str]]) -> None:
    quarantine = Quarantine()
    for request in broken:
        quarantine.broke(request)
    groups = quarantine.groups(texts)
    assert sorted(index for group in groups for index in group) == list(range(len(texts)))
    assert all(groups)


def test_groups_halve_with_every_breakdown() -> None:
    quarantine, texts = Quarantine(), [str(n) for n in range(8)]
    sizes = []
    for _ in range(4):
        group = [texts[index] for index in quarantine.groups(texts)[0]]
        sizes.append(len(group))
        assert not quarantine.is_single(group) or len(group) == 1
        quarantine.broke(group)
    assert sizes == [8, 4, 2, 1]


def test_success_releases() -> None:
    quarantine = Quarantine()
    quarantine.broke(["a"])
    assert quarantine.is_single(["a"])
    quarantine.passed(["a"])
    assert not quarantine.is_single(["a"])
    assert quarantine.groups(["a", "b"]) == [[0, 1]]


def test_a_confirmed_text_is_reported_once() -> None:
    quarantine = Quarantine()
    quarantine.broke(["a"])
    assert not quarantine.is_confirmed("a")
    quarantine.broke(["a"], alone=True)
    assert quarantine.is_confirmed("a")
    quarantine.reported("a")
    assert not quarantine.is_confirmed("a")
    assert quarantine.is_single(["a"])


def test_the_oldest_text_is_forgotten_first() -> None:
    quarantine = Quarantine()
    quarantine.broke(["the first"])
    quarantine.broke([str(n) for n in range(module.MAX_REMEMBERED)])
    assert not quarantine.is_single(["the first"])
    assert quarantine.groups(["0", "the first", "1"]) == [[0, 2], [1]]
