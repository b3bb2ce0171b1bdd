import hashlib
from typing import Any

import numpy as np
import pytest
from qdrant_client.models import PointStruct

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.points import MAX_METADATA_BYTES, points_of
from shared.pipeline import ids
from shared.pipeline.messages import EmbeddedDocument, Page
from shared.service.errors import RejectedError
from tests.support.documents import COLLECTION, DIMENSION, INDEXED_AT, embedded, ref_of, vector_of

URL = "https://example.org/a?x=1"
ENCODER = KeywordEncoder(KeywordParameters())


def build(document: EmbeddedDocument, version: int = 3) -> list[PointStruct]:
    return points_of(
        ref_of(URL, version),
        document,
        domain="example.org",
        collection=COLLECTION,
        indexed_at=INDEXED_AT,
        encoder=ENCODER,
    )


def vectors_of(point: PointStruct) -> dict[str, Any]:
    assert isinstance(point.vector, dict)
    return point.vector


def test_a_point_carries_all_that_search_shows_and_filters_by() -> None:
    page = Page(
        title="T",
        description="D",
        language="en",
        country="DE",
        is_mobile=True,
        metadata={"a": {"b": None}},
    )
    point = build(embedded(["first", "second"], page=page))[1]
    assert point.payload == {
        "document_id": ids.document_id(COLLECTION, URL),
        "version": 3,
        "url": URL,
        "domain": "example.org",
        "title": "T",
        "description": "D",
        "language": "en",
        "country": "DE",
        "is_mobile": True,
        "crawl_id": "crawl-1",
        "collection": "docs",
        "indexed_at": "2024-05-01T12:00:00+00:00",
        "metadata": {"a": {"b": None}},
        "chunk_index": 1,
        "text": "second",
        "prefix": "",
        "headings": ("Heading",),
        "start": 10,
        "end": 16,
        "tokens": 9,
        "text_hash": hashlib.sha256(b"second").hexdigest(),
    }


def test_ids_are_those_of_document_version_and_chunk() -> None:
    document_id = ids.document_id(COLLECTION, URL)
    assert [p.id for p in build(embedded(["a", "b"]))] == [
        ids.point_id(document_id, 3, at) for at in (0, 1)
    ]
    assert not {p.id for p in build(embedded(["a"]), 3)} & {p.id for p in build(embedded(["a"]), 4)}


def test_every_chunk_gets_its_own_dense_vector_bit_by_bit() -> None:
    texts = ["one", "two", "three"]
    for point, text in zip(build(embedded(texts)), texts, strict=True):
        assert vectors_of(point)["dense"] == [
            float(value) for value in np.array(vector_of(text), dtype="<f4")
        ]


def test_the_keyword_vector_sees_the_prefix_and_the_stored_text_does_not() -> None:
    (point,) = build(embedded(["body text"], prefix="Rare title\n\n"))
    assert vectors_of(point)["bm25"] == ENCODER.encode_document("Rare title\n\nbody text")
    assert point.payload is not None
    assert point.payload["text"] == "body text"


def test_a_chunk_of_stop_words_has_no_keyword_vector() -> None:
    (point,) = build(embedded(["to be or not to be"]))
    assert set(vectors_of(point)) == {"dense"}


def test_a_document_without_chunks_has_no_points() -> None:
    assert build(embedded([])) == []


@pytest.mark.parametrize("values", [DIMENSION - 1, 2 * DIMENSION + 1, 0])
def test_vectors_that_do_not_fit_the_chunks_reject_the_document(values: int) -> None:
    with pytest.raises(RejectedError) as caught:
        build(embedded(["a", "b"], vectors=np.ones(values, dtype="<f4").tobytes()))
    assert caught.value.code == "bad_vectors"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_vector_that_is_not_finite_rejects_the_document(value: float) -> None:
    packed = np.ones(2 * DIMENSION, dtype="<f4")
    packed[-1] = value
    with pytest.raises(RejectedError) as caught:
        build(embedded(["a", "b"], vectors=packed.tobytes()))
    assert caught.value.code == "bad_vectors"


def test_metadata_that_would_be_stored_with_every_chunk_is_bounded() -> None:
    fitting = {"a": "x" * (MAX_METADATA_BYTES - len('{"a":""}'))}
    assert build(embedded(["a"], page=Page(metadata=fitting)))
    with pytest.raises(RejectedError) as caught:
        build(embedded(["a"], page=Page(metadata={"a": fitting["a"] + "x"})))
    assert caught.value.code == "metadata_too_large"
