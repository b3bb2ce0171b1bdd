import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.documents.bulk import parse_batch, parse_ndjson, parse_single
from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.documents.document import Document, Limits, RejectedDocument
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError


def page(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"url": f"https://example.com/{number}", "markdown": f"# {number}", **fields}


def batch(*documents: Any, **fields: Any) -> bytes:
    return json.dumps({"documents": documents, **fields}).encode()


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def codes(documents: list[Document | RejectedDocument]) -> list[str]:
    return [
        document.code if isinstance(document, RejectedDocument) else "ok" for document in documents
    ]


def test_a_single_document_may_choose_lane_and_collection() -> None:
    document = parse_single(json.dumps(page(lane="low", collection="books")).encode())
    assert (document.url, document.lane, document.collection) == (
        "https://example.com/1",
        Lane.LOW,
        "books",
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", MalformedBodyError),
        (b"[]", UnprocessableBodyError),
        (b"5", UnprocessableBodyError),
        (b"{}", RejectedError),
    ],
)
def test_errors_of_a_single_body_distinguish_syntax_shape_and_document(
    body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        parse_single(body)


def test_a_batch_keeps_its_order_and_a_bad_document_fails_alone() -> None:
    bulk = parse_batch(
        batch(
            page(0),
            {"url": "https://example.com/bad"},
            5,
            page(3, title="\ud83d"),
            page(4, lane="x"),
        )
    )
    assert codes(bulk.documents) == ["ok", "empty_markdown", "malformed", "ok", "invalid_lane"]
    assert bulk.documents[1] == RejectedDocument(
        position=1,
        url="https://example.com/bad",
        code="empty_markdown",
        error="the document has no `markdown`",
    )
    assert [document.url for document in bulk.documents] == [
        "https://example.com/0",
        "https://example.com/bad",
        None,
        "https://example.com/3",
        "https://example.com/4",
    ]


def test_a_batch_chooses_for_all_its_documents() -> None:
    bulk = parse_batch(
        batch(page(), lane="HIGH", collection="books", callback_url="https://example.com/done")
    )
    assert (bulk.lane, bulk.collection, bulk.callback_url) == (
        Lane.HIGH,
        "books",
        "https://example.com/done",
    )
    assert (
        parse_batch(batch(page(), callbackUrl="https://example.com/x")).callback_url
        == "https://example.com/x"
    )
    plain = parse_batch(batch(page(), lane=None, collection="", callback_url=None))
    assert (plain.lane, plain.collection, plain.callback_url) == (None, None, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "object"),
        (b"{}", "`documents`: expected a list"),
        (b'{"documents":null}', "`documents`: expected a list"),
        (b'{"documents":{}}', "`documents`: expected a list"),
        (b'{"documents":[]}', "no documents"),
        (batch(page(), lane="urgent"), "`lane`: expected one of"),
        (batch(page(), lane=3), "`lane`: expected text"),
        (batch(page(), collection="a/b"), "`collection`: expected 1 to 128"),
        (
            batch(page(), callback_url="ftp://example.com"),
            "`callback_url`: the URL has the scheme ftp",
        ),
        (batch(page(), callback_url=["https://example.com"]), "`callback_url`: expected text"),
    ],
)
def test_a_batch_of_the_wrong_shape_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(UnprocessableBodyError, match=reason):
        parse_batch(body)


def test_a_batch_that_is_not_json_is_malformed() -> None:
    with pytest.raises(MalformedBodyError, match="not valid JSON"):
        parse_batch(b'{"documents":[}')


def test_the_number_of_documents_is_bounded() -> None:
    limits = Limits(max_documents=3)
    three = [page(number, tags="a,b,[c],d,e,f") for number in range(3)]
    assert len(parse_batch(batch(*three), limits).documents) == 3
    assert len(parse_ndjson(lines(*three), limits).documents) == 3
    with pytest.raises(UnprocessableBodyError, match="4 documents, at most 3"):
        parse_batch(batch(*three, page()), limits)
    with pytest.raises(UnprocessableBodyError, match="more than 3 documents"):
        parse_ndjson(lines(*three, page()), limits)


def test_ndjson_is_a_document_a_line_and_a_bad_line_fails_alone() -> None:
    body = (
        b"\xef\xbb\xbf\n \r\n"
        + lines(page(0)).replace(b"\n", b"\r\n")
        + b'{"url":\n\n5\n'
        + lines(page(3))[:-1]
    )
    bulk = parse_ndjson(body)
    assert codes(bulk.documents) == ["ok", "malformed", "malformed", "ok"]
    assert [
        document.position for document in bulk.documents if isinstance(document, RejectedDocument)
    ] == [1, 2]
    assert (bulk.lane, bulk.collection, bulk.callback_url) == (None, None, None)


@pytest.mark.parametrize("body", [b"", b"\n \n"])
def test_ndjson_without_documents_is_refused(body: bytes) -> None:
    with pytest.raises(UnprocessableBodyError, match="no documents"):
        parse_ndjson(body)


def test_batch_and_ndjson_read_a_document_alike() -> None:
    documents = [page(1, isMobile=True, metadata={"a": 1}), page(2, url=7), {}]
    assert parse_batch(batch(*documents)).documents == parse_ndjson(lines(*documents)).documents


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
envelopes = st.dictionaries(
    st.sampled_from(["documents", "lane", "collection", "callback_url"]),
    json_values | st.lists(json_values),
)


@settings(deadline=None)
@given(st.binary() | envelopes.map(lambda envelope: json.dumps(envelope).encode()))
@example(b'{"documents":[' + b"[" * 3000 + b"]" * 3000 + b"]}")
def test_no_body_raises_anything_else(body: bytes) -> None:
    for parse in (parse_single, parse_batch, parse_ndjson):
        try:
            result = parse(body)
        except (MalformedBodyError, UnprocessableBodyError, RejectedError) as error:
            assert str(error).encode()  # noqa: PT017 - that it can be sent is the point
        else:
            assert msgspec.json.encode(result)
