"""Baselines for the search of millstream: bm25s, exact dense search, and their fusion."""

from collections.abc import Mapping, Sequence

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

RRF_K = 60
DEPTH = 1000

Ranking = list[str]
Matrix = NDArray[np.float32]


class Bm25sIndex:
    """bm25s as its documentation shows it: English stop words, Snowball stemming, default k1, b."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts` by document id."""
        self._ids = list(texts)
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25()
        self._index.index(self._tokens(list(texts.values())), show_progress=False)

    def rank(self, query: str, depth: int = DEPTH) -> Ranking:
        """Ids of the documents that share a word with the query, best first."""
        found, scores = self._index.retrieve(
            self._tokens([query]), k=min(depth, len(self._ids)), show_progress=False, n_threads=1
        )
        return [self._ids[at] for at, score in zip(found[0], scores[0], strict=True) if score > 0]

    def _tokens(self, texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)


class DenseIndex:
    """Exact cosine over all chunks; the score of a document is that of its nearest chunk."""

    def __init__(self, owners: Sequence[str], vectors: Matrix) -> None:
        """`owners` names the document of each row of `vectors`, float32[chunks, dimension]."""
        self._owners = owners
        self._vectors = _normalised(vectors)

    def rank(self, query: Matrix, depth: int = DEPTH) -> Ranking:
        """Ids of the nearest documents, best first; `query` is float32[dimension]."""
        order = np.argsort(-(self._vectors @ query), kind="stable")
        return list(dict.fromkeys(self._owners[at] for at in order))[:depth]


def fuse(*rankings: Ranking) -> Ranking:
    """Reciprocal rank fusion with k = 60 (Cormack et al. 2009); ties by id."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, document_id in enumerate(ranking, start=1):
            scores[document_id] = scores.get(document_id, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores, key=lambda document_id: (-scores[document_id], document_id))


def _normalised(vectors: Matrix) -> Matrix:
    normalised: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised
