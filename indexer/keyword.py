"""Text to BM25 sparse vectors, and query terms back to spans of a text. The only place that knows
terms.

Terms are those of `qdrant_edge.Bm25` (words, English stop words and stemmer, murmur3 ids), as in
Qdrant's own `qdrant/bm25`; runs of Chinese, Japanese and Korean are cut to bigrams first. Qdrant
multiplies each term with its idf = ln(1 + (N - df + .5) / (df + .5)), so that a dot product is the
BM25 score.
"""

import re

import msgspec
from qdrant_client.models import SparseVector
from qdrant_edge import Bm25, Bm25Config

from shared.pipeline.characters import character_class, marks

TOKENIZER = "word+cjk-bigrams/english"

# With b = 0 and a huge k a value is the term's count: tf (k + 1) / (k + tf), exact up to 5,000 and
# more.
_COUNTING = Bm25Config(k=1e12, b=0.0, avg_len=1.0)

# Scripts without spaces between words; a run of them would be one term, and only an equal run would
# match it.
_CJK = "\u3005\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_CJK += "\u3400-\u4dbf\u4e00-\u9fff"
_CJK += "\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
_CJK_RUN = re.compile(f"[{_CJK}]+")
# `re` does not take marks for parts of a word, the tokenizer takes most of them: without them,
# Hindi or Thai words would fall apart.
_WORD = re.compile(
    f"[{_CJK}]+|(?:(?![{_CJK}])[^\\W_])(?:(?![{_CJK}])(?:[^\\W_]|{character_class(marks())}))*"
)


class KeywordParameters(msgspec.Struct, frozen=True, kw_only=True):
    """How a collection's documents were encoded; kept in its metadata, because a change is a
    reindex.
    """

    k1: float = 1.5
    b: float = 0.75
    # Mean terms of a stored chunk after stop words, measured on documentation pages.
    avg_len: float = 100.0
    tokenizer: str = TOKENIZER


class KeywordEncoder:
    """Encodes documents with one collection's parameters; a query's vector is the same for all of
    them.

    Holds the GIL: 55 us for a chunk of 800 characters.
    """

    def __init__(self, parameters: KeywordParameters) -> None:
        self._documents = Bm25(
            Bm25Config(k=parameters.k1, b=parameters.b, avg_len=parameters.avg_len)
        )
        self._counts = Bm25(_COUNTING)

    def encode_document(self, text: str) -> SparseVector:
        """tf (k1 + 1) / (tf + k1 (1 - b + b len / avg_len)) of every term; empty if all are stop
        words.
        """
        encoded = self._documents.embed_document(_separate_bigrams(text))
        return SparseVector(indices=encoded.indices, values=encoded.values)

    def encode_query(self, text: str) -> SparseVector:
        """The count of every term; `Bm25.embed_query` drops repetitions, which cost up to .1
        nDCG@10.
        """
        encoded = self._counts.embed_document(_separate_bigrams(text))
        return SparseVector(indices=encoded.indices, values=encoded.values)

    def highlight(self, text: str, query: SparseVector) -> list[tuple[int, int]]:
        """Where words of `text` have the stem of a query's term: character spans, end exclusive, in
        order.
        """
        wanted = frozenset(query.indices)
        spans: list[tuple[int, int]] = []
        if not wanted:
            return spans
        for start, end in _terms(text):
            if wanted.isdisjoint(self._counts.embed_query(text[start:end]).indices):
                continue
            overlaps = bool(spans) and start < spans[-1][1]  # as bigrams do
            spans.append((spans.pop()[0] if overlaps else start, end))
        return spans


def _separate_bigrams(text: str) -> str:
    return _CJK_RUN.sub(_spaced, text)


def _spaced(run: re.Match[str]) -> str:
    return " " + " ".join(run[0][start:end] for start, end in _bigrams(0, len(run[0]))) + " "


def _terms(text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        is_cjk = _CJK_RUN.match(word[0]) is not None
        found += _bigrams(*word.span()) if is_cjk else [word.span()]
    return found


def _bigrams(start: int, end: int) -> list[tuple[int, int]]:
    """Neighbouring pairs, as Lucene's CJKAnalyzer makes them; one character stands for itself."""
    return [(at, at + 2) for at in range(start, end - 1)] or [(start, end)]
