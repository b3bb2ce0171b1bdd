"""Headers and bodies as they travel."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import (
    SCHEMA_VERSION,
    Action,
    Chunk,
    ChunkedDocument,
    DocumentRef,
    Header,
    MalformedMessageError,
    NewerSchemaError,
    Page,
    body_parts,
    decode_header,
    decode_part,
    encode_body,
    encode_header,
    pack,
    summarize_header,
)

REF = DocumentRef(
    job_id="6f1e7f9a-0000-4000-8000-000000000001",
    position=3,
    release=7,
    domain="example.com",
    document_id="6f1e7f9a-0000-4000-8000-000000000002",
    version=11,
    url="https://example.com/a",
    crawl_id="c1",
)
HEADER = Header(target="pulse_docs_1", lane=Lane.NORMAL, documents=(REF,), deliveries=2)

# What release 1 wrote. A later release must read it for ever: never change these bytes.
GOLDEN_HEADER = (
    b'{"target":"pulse_docs_1","lane":"normal",'
    b'"documents":[{"job_id":"6f1e7f9a-0000-4000-8000-000000000001",'
    b'"position":3,"release":7,"document_id":"6f1e7f9a-0000-4000-8000-000000000002","version":11,'
    b'"url":"https://example.com/a","action":"index","domain":"example.com","crawl_id":"c1"}],"deliveries":2,'
    b'"traceparent":null,"schema":1}'
)

CHUNK = Chunk(text="text", prefix="Title\n", headings=("Title",), start=0, end=4, tokens=6)
DOCUMENT = ChunkedDocument(
    page=Page(title="Title"), content_hash=b"h" * 32, fingerprint=b"f" * 32, chunks=(CHUNK,)
)


def test_the_header_of_schema_1_is_read_and_written_byte_for_byte() -> None:
    assert decode_header(GOLDEN_HEADER) == HEADER
    assert encode_header(HEADER) == GOLDEN_HEADER


def test_the_trace_of_a_document_travels_with_it() -> None:
    traced = msgspec.structs.replace(
        REF, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )
    header = msgspec.structs.replace(HEADER, documents=(traced, REF))
    assert decode_header(encode_header(header)) == header


@pytest.mark.parametrize("documents", [[1, 2], "another shape", None])
def test_a_newer_schema_is_told_apart_from_a_malformed_header(documents: object) -> None:
    newer = msgspec.json.encode(
        {"documents": documents, "schema": SCHEMA_VERSION + 1, "shape": "unknown"}
    )
    assert summarize_header(newer).is_newer
    with pytest.raises(NewerSchemaError):
        decode_header(newer)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_header(data)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_summary(data: bytes) -> None:
    assert len(summarize_header(data).documents) >= 0


def test_a_missing_header_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        decode_header(None)


def test_a_body_comes_back_part_by_part() -> None:
    parts = body_parts(encode_body([DOCUMENT, DOCUMENT]), 2)
    assert [decode_part(part, ChunkedDocument) for part in parts] == [DOCUMENT, DOCUMENT]


def test_parts_travel_on_without_being_decoded() -> None:
    parts = body_parts(encode_body([DOCUMENT, DOCUMENT]), 2)
    again = body_parts(encode_body([parts[1]]), 1)
    assert decode_part(again[0], ChunkedDocument) == DOCUMENT


def test_an_entry_without_a_body_has_a_part_for_nobody() -> None:
    assert list(body_parts(b"", 2)) == [None, None]


def test_a_body_of_another_length_than_the_header_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        body_parts(encode_body([DOCUMENT]), 2)


@given(st.binary(max_size=100))
def test_a_part_of_any_bytes_is_a_document_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_part(msgspec.Raw(data), ChunkedDocument)


def test_a_chunk_is_embedded_with_its_prefix() -> None:
    assert CHUNK.embedded_text == "Title\ntext"


def test_every_action_and_lane_survives_the_header() -> None:
    for lane in Lane:
        for action in Action:
            header = msgspec.structs.replace(
                HEADER, lane=lane, documents=(msgspec.structs.replace(REF, action=action),)
            )
            assert decode_header(encode_header(header)) == header


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 60))
def test_packed_messages_have_all_documents_in_order_and_none_is_too_large(
    sizes: list[int], most_bytes: int
) -> None:
    documents = [
        (msgspec.structs.replace(REF, position=position), bytes(size))
        for position, size in enumerate(sizes)
    ]
    found = []
    for message in pack(HEADER, documents, most_bytes):
        refs = decode_header(message.header).documents
        parts = body_parts(message.body, len(refs))
        assert len(parts) == 1 or sum(len(part or b"") for part in parts) <= most_bytes
        found += [(ref, decode_part(part, bytes)) for ref, part in zip(refs, parts, strict=True)]
    assert found == documents


def test_documents_share_a_message_while_there_is_room() -> None:
    documents = [(REF, b"12345678")] * 5  # 10 bytes each with the head of msgpack
    messages = pack(HEADER, documents, 20)
    assert [len(decode_header(message.header).documents) for message in messages] == [2, 2, 1]
