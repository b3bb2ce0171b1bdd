import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.models import SparseVector
from rank_bm25 import BM25Okapi

from indexer.keyword import KeywordEncoder, KeywordParameters
from tests.support.corpus import docstrings
from tests.support.keyword_oracle import Oracle, terms

ENCODER = KeywordEncoder(KeywordParameters())


def as_dict(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def test_dot_products_with_idf_are_the_scores_of_brute_force_bm25() -> None:
    texts = docstrings()
    oracle = Oracle(texts, k1=1.5, b=0.75)
    encoder = KeywordEncoder(KeywordParameters(avg_len=oracle.avgdl))
    documents = [as_dict(encoder.encode_document(text)) for text in texts]
    for query in (
        "close the event loop",
        "thread lock acquire thread",
        "header of an HTTP response",
    ):
        weights = as_dict(encoder.encode_query(query))
        scores = [
            sum(
                count * oracle.idf.get(term, 0.0) * document.get(term, 0.0)
                for term, count in weights.items()
            )
            for document in documents
        ]
        assert scores == pytest.approx(oracle.scores(query), rel=1e-5)
        assert max(scores) > 1


def test_the_oracle_is_rank_bm25_but_for_the_idf() -> None:
    texts = docstrings()[:50]
    oracle, original = Oracle(texts, k1=1.5, b=0.75), BM25Okapi([terms(text) for text in texts])
    oracle.idf = original.idf
    assert oracle.scores("future result") == list(original.get_scores(terms("future result")))


@given(st.lists(st.sampled_from(["fox", "foxes", "river", "boat", "jumping", "the"]), max_size=400))
def test_a_query_vector_counts_every_repetition(words: list[str]) -> None:
    counts = as_dict(ENCODER.encode_query(" ".join(words)))
    assert counts == {
        term: words.count(word) for word, term in _STEMS.items() if word in words
    } | _fox_count(words)


_STEMS = {word: ENCODER.encode_query(word).indices[0] for word in ("river", "boat", "jumping")}


def _fox_count(words: list[str]) -> dict[int, int]:
    count = words.count("fox") + words.count("foxes")
    return {ENCODER.encode_query("fox").indices[0]: count} if count else {}


def test_a_term_weighs_more_in_a_shorter_document() -> None:
    short, long = (
        ENCODER.encode_document("fox"),
        ENCODER.encode_document("fox " + "river boat " * 200),
    )
    term = short.indices[0]
    assert as_dict(short)[term] == pytest.approx(2.5 / (1 + 1.5 * (0.25 + 0.75 / 100)))
    assert as_dict(long)[term] == pytest.approx(2.5 / (1 + 1.5 * (0.25 + 0.75 * 401 / 100)))


def test_stop_words_alone_make_an_empty_vector() -> None:
    assert ENCODER.encode_query("to be or not to be").indices == []
    assert ENCODER.encode_document("").indices == []


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("依存性注入", "このページでは依存性注入の使い方を説明します"),
        ("路径参数", "您可以声明路径参数的类型"),
        ("의존성", "의존성을 주입합니다"),
    ],
)
def test_a_word_is_found_inside_a_run_of_script_without_spaces(query: str, page: str) -> None:
    wanted, stored = ENCODER.encode_query(query), ENCODER.encode_document(page)
    assert wanted.indices
    assert set(wanted.indices) <= set(stored.indices)


def test_a_script_without_spaces_does_not_change_the_words_beside_it() -> None:
    assert set(ENCODER.encode_query("FastAPI").indices) <= set(
        ENCODER.encode_query("FastAPI入門").indices
    )


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        (
            "jump foxes",
            "A fox jumped; the Foxes' jumping_rope.",
            ["fox", "jumped", "Foxes", "jumping"],
        ),
        ("the of", "the state of the art", []),
        ("HTTP 404", "An HTTP/1.1 404 answer", ["HTTP", "404"]),
        ("依存性注入", "これは依存性注入です", ["依存性注入"]),
        ("हिन्दी", "🙂 यह हिन्दी है", ["हिन्दी"]),
        ("ที่", "คน ที่ มา", ["ที่"]),
        ("cafés", "Le café 🙂, les cafés", ["café", "cafés"]),
        ("<b>", "a <b>bold</b> & <i>b</i>", ["b", "b", "b"]),
        ("", "nothing", []),
    ],
)
def test_highlights_mark_the_words_that_share_a_stem_with_the_query(
    query: str, text: str, marked: list[str]
) -> None:
    spans = ENCODER.highlight(text, ENCODER.encode_query(query))
    assert [text[start:end] for start, end in spans] == marked


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_encoded_and_marked(text: str) -> None:
    query = ENCODER.encode_query(text)
    assert all(value >= 1 and math.isfinite(value) for value in query.values)
    spans = ENCODER.highlight(text, query)
    ends = [0, *(end for _, end in spans)]
    assert all(
        end <= start < stop <= len(text) for end, (start, stop) in zip(ends, spans, strict=False)
    )
