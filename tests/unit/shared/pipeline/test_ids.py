import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pipeline.ids import NAMESPACE, document_id, point_id

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(deadline=None)
@given(texts, texts)
def test_a_document_id_is_the_uuid5_of_collection_and_url(collection: str, url: str) -> None:
    assert document_id(collection, url) == str(uuid.uuid5(NAMESPACE, f"{collection}\n{url}"))


@settings(deadline=None)
@given(st.uuids(), st.integers(0, 2**63), st.integers(0, 2**31))
def test_a_point_id_is_the_uuid5_of_document_version_and_chunk(
    document: uuid.UUID, version: int, chunk: int
) -> None:
    assert point_id(str(document), version, chunk) == str(
        uuid.uuid5(NAMESPACE, f"{document}/{version}/{chunk}")
    )


def test_stored_ids_stay_what_they_are() -> None:
    document = document_id("pulse_docs", "https://example.com/")
    assert document == "0737e6e2-2b13-5444-a730-afe1ea71643a"
    assert point_id(document, 7, 0) == "8964b6f5-1ae7-5e3a-ba43-b1e391dcdbcf"


def test_the_same_page_in_two_collections_is_two_documents() -> None:
    assert document_id("a", "https://example.com/") != document_id("b", "https://example.com/")


def test_versions_and_chunks_of_one_document_have_points_of_their_own() -> None:
    points = {point_id("d", version, chunk) for version in range(12) for chunk in range(120)}
    assert len(points) == 12 * 120
