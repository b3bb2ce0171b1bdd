"""BM25 in memory over a corpus that changes: BM25Okapi with exact adding and removing."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

Terms = Mapping[int, int]  # term -> how often


class ChangingBm25(BM25Okapi):  # type: ignore[misc]
    """Scores as a BM25Okapi that is built anew of the documents it holds just now.

    Its idf is ln(1 + (N - df + .5) / (df + .5)), as in Qdrant and Lucene: that of BM25Okapi is
    negative for terms in more than half of the documents and leans on an average over all terms,
    which every change would move.
    """

    def __init__(self, *, k1: float = 1.5, b: float = 0.75) -> None:
        # Not super().__init__, which divides by the size of the corpus; these are the attributes it
        # sets.
        self.k1 = k1
        self.b = b
        self.corpus_size = 0
        self.avgdl = 0.0
        self.doc_freqs: list[Terms] = []
        self.doc_len: list[int] = []
        self.idf: dict[int, float] = {}
        self._holders: dict[int, int] = {}  # term -> documents that have it
        self._length = 0  # of all documents

    def add(self, document: Terms) -> None:
        """Append a document: it gets the number `corpus_size` had."""
        self.doc_freqs.append(document)
        self.doc_len.append(sum(document.values()))
        for term in document:
            self._holders[term] = self._holders.get(term, 0) + 1
        self._resize(self.doc_len[-1], 1)

    def remove(self, number: int) -> None:
        """Take a document out; the last one gets its number."""
        self._resize(-self.doc_len[number], -1)
        for term in self.doc_freqs[number]:
            self._holders[term] -= 1
            if not self._holders[term]:
                del self._holders[term]
        last, length = self.doc_freqs.pop(), self.doc_len.pop()
        if number < self.corpus_size:
            self.doc_freqs[number], self.doc_len[number] = last, length

    def get_scores(self, query: Sequence[int]) -> NDArray[np.float64]:
        """float64[documents]: 0 for a document without any term of the query. Terms may repeat."""
        if not self.corpus_size or not self._length:
            return np.zeros(self.corpus_size)
        self.idf = {term: self._idf(self._holders[term]) for term in query if term in self._holders}
        scores: NDArray[np.float64] = super().get_scores(query)
        return scores

    def _idf(self, holders: int) -> float:
        return math.log(1 + (self.corpus_size - holders + 0.5) / (holders + 0.5))

    def _resize(self, length: int, documents: int) -> None:
        self._length += length
        self.corpus_size += documents
        self.avgdl = self._length / self.corpus_size if self.corpus_size else 0.0
