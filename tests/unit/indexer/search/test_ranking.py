import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from indexer.search import ranking
from indexer.search.ranking import Hit


def hit(document: str, *, version: int = 1, chunk: int = 0, score: float = 1.0) -> Hit:
    return Hit(
        id=f"{document}/{version}/{chunk}",
        document_id=document,
        version=version,
        chunk_index=chunk,
        score=score,
    )


hits = st.lists(
    st.builds(
        hit,
        st.sampled_from("abcdef"),
        version=st.integers(1, 3),
        chunk=st.integers(0, 3),
        score=st.sampled_from([0.1, 0.5, 0.9]),
    ),
    unique_by=lambda h: h.id,
    max_size=30,
)


def names(found: list[Hit]) -> list[str]:
    return [h.id for h in found]


def test_fusion_adds_the_reciprocal_ranks_of_both_sides() -> None:
    dense = [hit("a", score=0.9), hit("b", score=0.8)]
    keyword = [hit("b", score=12.0), hit("c", score=7.0)]
    fused = ranking.fuse([dense, keyword], k=60)
    assert {h.document_id: h.score for h in fused} == {
        "b": 1 / 62 + 1 / 61,
        "a": 1 / 61,
        "c": 1 / 62,
    }
    assert [h.document_id for h in fused] == ["b", "a", "c"]


def test_equal_scores_are_ordered_by_document_then_chunk() -> None:
    found = [hit("b", chunk=0), hit("a", chunk=2), hit("a", chunk=1)]
    assert names(ranking.order(found)) == ["a/1/1", "a/1/2", "b/1/0"]
    assert names(ranking.fuse([found], k=60)) == ["a/1/1", "a/1/2", "b/1/0"]


@given(hits, hits, st.randoms(use_true_random=False), st.integers(1, 100))
def test_fusion_does_not_depend_on_the_order_in_which_qdrant_answers(
    dense: list[Hit], keyword: list[Hit], shuffle: random.Random, k: int
) -> None:
    fused = ranking.fuse([dense, keyword], k)
    assert ranking.fuse([shuffle.sample(dense, len(dense)), keyword], k) == fused
    assert ranking.fuse([keyword, dense], k) == fused


@given(hits, hits)
def test_fusion_keeps_every_hit_once_and_the_order_of_a_single_side(
    dense: list[Hit], keyword: list[Hit]
) -> None:
    fused = names(ranking.fuse([dense, keyword], 60))
    assert sorted(fused) == sorted({h.id for h in (*dense, *keyword)})
    assert names(ranking.fuse([dense], 60)) == names(ranking.order(dense))


@given(hits, hits, st.randoms(use_true_random=False), st.integers(1, 100))
def test_fusion_of_documents_is_that_of_hits_with_one_chunk_each(
    dense: list[Hit], keyword: list[Hit], shuffle: random.Random, k: int
) -> None:
    fused = ranking.fuse_documents([dense, keyword], k)
    assert sorted(h.document_id for h in fused) == sorted(
        {h.document_id for h in (*dense, *keyword)}
    )
    assert ranking.fuse_documents([keyword, shuffle.sample(dense, len(dense))], k) == fused
    sides = [ranking.best_per_document(ranking.order(side)) for side in (dense, keyword)]
    single = [
        [msgspec.structs.replace(h, id=h.document_id, chunk_index=0) for h in side]
        for side in sides
    ]
    assert [h.score for h in fused] == [h.score for h in ranking.fuse(single, k)]


def test_many_chunks_of_one_document_do_not_push_another_one_down() -> None:
    long = [hit("long", chunk=n, score=9 - n / 10) for n in range(8)]
    other = hit("other", score=1)
    fused = ranking.fuse_documents([[*long, other], [other]], 60)
    assert [(h.document_id, h.score) for h in fused] == [
        ("other", 1 / 61 + 1 / 62),
        ("long", 1 / 61),
    ]


@given(hits)
def test_collapsing_keeps_the_best_hit_of_every_document_in_order(found: list[Hit]) -> None:
    ordered = ranking.order(found)
    best = ranking.best_per_document(ordered)
    assert {h.document_id for h in best} == {h.document_id for h in found}
    assert best == ranking.order(best)
    for kept in best:
        assert kept.score == max(h.score for h in found if h.document_id == kept.document_id)


def test_only_the_live_version_of_a_known_document_is_visible() -> None:
    found = [hit("live", version=2), hit("live", version=1), hit("deleted"), hit("unknown")]
    assert names(ranking.live_hits(found, {"live": 2, "deleted": None})) == ["live/2/0"]


def test_only_a_live_document_whose_live_version_was_not_hit_is_asked_for_again() -> None:
    found = [
        hit("new", version=1),
        hit("settled", version=1),
        hit("settled", version=2),
        hit("deleted"),
        hit("gone"),
    ]
    live = {"new": 2, "settled": 2, "deleted": None}
    assert ranking.overtaken_documents([found], live) == {"new": 2}
    assert ranking.overtaken_documents([found, [hit("settled", version=1)]], live) == {
        "new": 2,
        "settled": 2,
    }
    assert ranking.overtaken_documents([found, []], live) == {"new": 2}


@given(hits)
def test_without_the_registry_every_document_shows_its_newest_version(found: list[Hit]) -> None:
    visible = ranking.live_hits(found, ranking.newest_versions(found))
    assert {h.document_id for h in visible} == {h.document_id for h in found}
    for shown in visible:
        assert shown.version == max(h.version for h in found if h.document_id == shown.document_id)
