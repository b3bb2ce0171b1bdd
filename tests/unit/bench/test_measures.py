import math
import random

import pytest

from bench.measures import ndcg, paired_interval, recall


def test_ndcg_is_1_for_the_ideal_order_and_0_without_a_relevant_document() -> None:
    relevance = {"a": 2, "b": 1}
    assert ndcg(["a", "b", "c"], relevance) == 1
    assert ndcg(["c", "d"], relevance) == 0
    assert ndcg([], relevance) == 0


def test_ndcg_weighs_gains_by_the_logarithm_of_the_rank() -> None:
    assert ndcg(["c", "b", "a"], {"a": 2, "b": 1}) == pytest.approx(
        (1 / math.log2(3) + 2 / math.log2(4)) / (2 + 1 / math.log2(3))
    )


def test_ndcg_looks_at_ten_documents_on_both_sides() -> None:
    relevant = {str(n): 1 for n in range(20)}
    assert ndcg([str(n) for n in range(10)], relevant) == pytest.approx(1)
    assert ndcg([*"abcdefghij", "0"], relevant) == 0


def test_recall_is_the_share_of_the_relevant_that_were_found() -> None:
    assert recall(["a", "x", "b"], {"a": 1, "b": 1, "c": 1, "d": 1}) == 0.5
    assert recall(["x"] * 100 + ["a"], {"a": 1}) == 0


def test_an_interval_of_paired_differences_lies_around_their_mean() -> None:
    chance = random.Random(7)
    theirs = [chance.random() for _ in range(200)]
    ours = [score + 0.05 + chance.gauss(0, 0.02) for score in theirs]
    low, high = paired_interval(ours, theirs)
    assert 0.04 < low < 0.05 < high < 0.06
    assert paired_interval(theirs, theirs) == (0, 0)
