"""BM25 by brute force, over the same terms as the encoder but none of its arithmetic."""

import math
import re
from collections.abc import Sequence

from qdrant_edge import Bm25
from rank_bm25 import BM25Okapi

_tokenizer = Bm25()
_WORD = re.compile(r"[^\W_]+")


def terms(text: str) -> list[int]:
    """The term of every word, in order, repetitions included; stop words have none."""
    return [term for word in _WORD.findall(text) for term in _tokenizer.embed_query(word).indices]


class FrozenBm25(BM25Okapi):  # type: ignore[misc]
    """rank-bm25 over lists of terms, with the idf of Lucene and Qdrant, which is never negative."""

    def __init__(self, documents: Sequence[Sequence[int]], *, k1: float, b: float) -> None:
        super().__init__(documents, k1=k1, b=b)

    def _calc_idf(self, nd: dict[int, int]) -> None:
        for term, df in nd.items():
            self.idf[term] = math.log(1 + (self.corpus_size - df + 0.5) / (df + 0.5))


class Oracle(FrozenBm25):
    """The same over texts."""

    def __init__(self, texts: Sequence[str], *, k1: float, b: float) -> None:
        super().__init__([terms(text) for text in texts], k1=k1, b=b)

    def scores(self, query: str) -> list[float]:
        """The score of every text, in order."""
        return [float(score) for score in self.get_scores(terms(query))]
