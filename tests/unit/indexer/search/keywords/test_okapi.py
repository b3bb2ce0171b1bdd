from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.search.keywords.okapi import ChangingBm25
from tests.support.keyword_oracle import FrozenBm25

WORDS = st.integers(0, 8)
DOCUMENTS = st.lists(WORDS, max_size=12)


def changing(documents: list[list[int]]) -> ChangingBm25:
    bm25 = ChangingBm25(k1=1.2, b=0.6)
    for document in documents:
        bm25.add(Counter(document))
    return bm25


@given(
    st.lists(DOCUMENTS, min_size=1, max_size=12),
    st.lists(st.integers(0, 100), max_size=10),
    DOCUMENTS,
)
def test_after_any_removals_scores_are_bit_for_bit_those_of_a_fresh_build(
    documents: list[list[int]], removals: list[int], query: list[int]
) -> None:
    bm25, kept = changing(documents), list(documents)
    for removal in removals:
        if len(kept) > 1:
            number = removal % len(kept)
            bm25.remove(number)
            kept[number] = kept[-1]
            kept.pop()
    if any(kept):
        assert list(bm25.get_scores(query)) == list(
            FrozenBm25(kept, k1=1.2, b=0.6).get_scores(query)
        )
    assert list(bm25.get_scores(query)) == list(changing(kept).get_scores(query))


def test_an_empty_corpus_has_no_scores() -> None:
    bm25 = changing([[1, 2]])
    bm25.remove(0)
    assert list(bm25.get_scores([1])) == []
    bm25.add({})
    assert list(bm25.get_scores([1])) == [0]


def test_a_term_that_every_document_has_still_counts() -> None:
    assert min(changing([[1], [1, 1], [1, 2]]).get_scores([1])) > 0


def test_a_term_of_the_query_counts_as_often_as_it_stands_there() -> None:
    bm25 = changing([[1, 2], [3]])
    assert bm25.get_scores([1, 1])[0] == pytest.approx(2 * bm25.get_scores([1])[0])
