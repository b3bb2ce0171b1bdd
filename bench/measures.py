"""Measures of retrieval, as in trec_eval, and bootstrap intervals of paired differences. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 10_000


def ndcg(ranking: Sequence[str], relevance: Mapping[str, int], depth: int = 10) -> float:
    """Normalised discounted cumulative gain of the first `depth`: discount log2(1 + rank)."""
    ideal = _discounted(sorted(relevance.values(), reverse=True)[:depth])
    return _discounted([relevance.get(document_id, 0) for document_id in ranking[:depth]]) / ideal


def recall(ranking: Sequence[str], relevance: Mapping[str, int], depth: int = 100) -> float:
    """The share of the relevant documents among the first `depth`."""
    return len(relevance.keys() & set(ranking[:depth])) / len(relevance)


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """The middle 95% of mean differences `ours` - `theirs` over resampled queries."""
    differences = np.asarray(ours) - np.asarray(theirs)
    drawn = np.random.default_rng(seed).integers(
        len(differences), size=(RESAMPLES, len(differences))
    )
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
