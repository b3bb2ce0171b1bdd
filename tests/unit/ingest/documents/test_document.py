import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.documents.document import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_TITLE_CHARACTERS,
    Document,
    Limits,
    build_api_document,
)
from ingest.documents.draft import read_draft
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Page
from shared.service.errors import RejectedError

URL = "https://example.com/docs/?utm_source=x"
MINIMAL = {"url": URL, "markdown": "# Hello"}


def parse_document(raw: bytes, limits: Limits | None = None) -> Document:
    """One document of the API, as one of many is parsed."""
    return build_api_document(read_draft(raw), limits or Limits())


def parse(**fields: Any) -> Document:
    return parse_document(json.dumps({**MINIMAL, **fields}).encode())


def rejection(body: bytes | dict[str, Any], limits: Limits | None = None) -> tuple[str, str]:
    with pytest.raises(RejectedError) as caught:
        parse_document(
            body if isinstance(body, bytes) else json.dumps(body).encode(), limits or Limits()
        )
    return caught.value.code, caught.value.reason


def test_url_and_markdown_are_enough() -> None:
    assert parse() == Document(
        url=URL, canonical_url="https://example.com/docs", markdown="# Hello"
    )


def test_every_field_is_read() -> None:
    document = parse(
        title="T", description="D", language="en-GB", country="GB", isMobile=True,
        metadata={"a": [1]}, lane="low", collection="books",
    )  # fmt: skip
    assert document == Document(
        url=URL, canonical_url="https://example.com/docs", markdown="# Hello", lane=Lane.LOW,
        collection="books",
        page=Page(
            title="T", description="D", language="en-GB", country="GB", is_mobile=True,
            metadata={"a": [1]},
        ),
    )  # fmt: skip


def test_extra_fields_of_the_original_service_are_ignored() -> None:
    extras = {
        "resolvedUrl": "https://example.com/x", "resolved_url": "https://example.com/x",
        "html": "<p>" * 1000, "statusCode": 404, "status_code": 500, "gitHash": None,
        "links": [["deep", {"er": []}]],
    }  # fmt: skip
    assert parse(**extras) == parse()


@pytest.mark.parametrize(
    ("fields", "is_mobile"),
    [
        ({"isMobile": True}, True),
        ({"is_mobile": False}, False),
        ({"isMobile": None}, None),
        ({"isMobile": "yes"}, None),
    ],
)
def test_is_mobile_is_a_boolean_or_unknown(fields: dict[str, Any], is_mobile: bool | None) -> None:
    assert parse(**fields).page.is_mobile is is_mobile


@pytest.mark.parametrize(
    "fields",
    [
        {"url": None, "metadata": {"url": "https://m.example/", "sourceURL": "https://s.example/"}},
        {"url": " ", "metadata": {"url": ["https://m.example/", "https://other.example/"]}},
        {"url": 5, "metadata": {"url": "https://m.example/"}},
        {"url": "", "metadata": {"sourceURL": "https://m.example/"}},
        {"url": "", "metadata": {"url": None, "source_url": "https://m.example/"}},
    ],
)
def test_a_missing_url_is_taken_from_the_metadata(fields: dict[str, Any]) -> None:
    assert parse(**fields).url == "https://m.example/"


def test_the_url_of_the_document_has_priority_over_its_metadata() -> None:
    assert parse(metadata={"url": "https://m.example/"}).url == URL


def test_missing_title_description_and_language_are_taken_from_the_metadata() -> None:
    metadata = {"title": ["", "T1", "T2"], "ogDescription": "D", "language": "de"}
    page = parse(metadata=metadata, title="  ").page
    assert (page.title, page.description, page.language) == ("T1", "D", "de")
    assert page.metadata == metadata


def test_long_titles_and_descriptions_are_truncated_and_invalid_tags_dropped() -> None:
    page = parse(
        title="t" * 600, description="d" * 3000, language="x" * 36, country={"code": "DE"}
    ).page
    assert page.title == "t" * MAX_TITLE_CHARACTERS
    assert page.description == "d" * MAX_DESCRIPTION_CHARACTERS
    assert (page.language, page.country) == (None, None)


def test_nul_is_removed_and_lone_surrogates_are_replaced_everywhere() -> None:
    document = parse(
        url="https://example.com/a\0",
        markdown="a\0b\ud83dc",
        title="\ude00T\0",
        metadata={"k\0\ud83d": ["v\0\ude00"]},
    )
    assert document.url == "https://example.com/a"
    assert (document.markdown, document.page.title) == ("ab\ufffdc", "\ufffdT")
    assert document.page.metadata == {"k\ufffd": ["v\ufffd"]}


def test_a_surrogate_in_a_skipped_field_has_no_effect() -> None:
    assert parse(html="\ud83d", markdown="😀") == parse(markdown="😀")


@pytest.mark.parametrize("levels", [100, 5000])
def test_deep_nesting_in_a_skipped_field_has_no_effect(levels: int) -> None:
    deep = b"[" * levels + b"]" * levels
    body = (
        b'{"json":'
        + deep
        + b',"url":"https://example.com/","markdown":"a","metadata":{"x":'
        + deep
        + b',"y":1}}'
    )
    document = parse_document(body)
    assert (document.page.metadata, document.metadata_omitted) == ({"y": 1}, 1)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ({"markdown": "a"}, "missing_url", "no `url`"),
        ({"url": "", "markdown": "a"}, "missing_url", "no `url`"),
        ({"url": 5, "markdown": "a"}, "invalid_url", "`url`: expected text"),
        ({"url": "example.com", "markdown": "a"}, "invalid_url", "no scheme"),
        ({"url": "ftp://example.com/", "markdown": "a"}, "invalid_url", "ftp"),
        ({"url": "https://e.example/" + "a" * 70_000, "markdown": "a"}, "invalid_url", "2,048"),
        ({"url": URL}, "empty_markdown", "no `markdown`"),
        ({"url": URL, "markdown": None}, "empty_markdown", "no `markdown`"),
        ({"url": URL, "markdown": ""}, "empty_markdown", "blank"),
        ({"url": URL, "markdown": " \n\0\u3000"}, "empty_markdown", "blank"),
        ({"url": URL, "markdown": 5}, "markdown_not_text", "expected text"),
        ({"url": URL, "markdown": ["a"]}, "markdown_not_text", "expected text"),
        ({**MINIMAL, "metadata": [1]}, "metadata_not_object", "JSON object"),
        ({**MINIMAL, "metadata": "x"}, "metadata_not_object", "JSON object"),
        ({**MINIMAL, "lane": "urgent"}, "invalid_lane", "high, normal, low"),
        ({**MINIMAL, "lane": 1}, "invalid_lane", "expected text"),
        ({**MINIMAL, "collection": "../x"}, "invalid_collection", "1 to 128"),
        ({**MINIMAL, "collection": ["x"]}, "invalid_collection", "expected text"),
        (b"", "malformed", "JSON"),
        (b"{", "malformed", "JSON"),
        (b"[]", "malformed", "not a JSON object"),
        (b"null", "malformed", "not a JSON object"),
        (b'{"url":"https://e.example/","markdown":"\xff"}', "malformed", "UTF-8"),
        (b'{"url":"https://e.example/","markdown":"a","title":"\xff"}', "malformed", "UTF-8"),
        (b'{"url":"https://e.example/","markdown":"a","lane":"\xff"}', "malformed", "UTF-8"),
        (
            b'{"url":"https://e.example/","markdown":"a","metadata":{"\xff":1}}',
            "malformed",
            "UTF-8",
        ),
    ],
)
def test_an_invalid_document_is_rejected_with_code_and_reason(
    body: bytes | dict[str, Any], code: str, reason: str
) -> None:
    found, said = rejection(body)
    assert found == code
    assert reason in said


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize(
    ("markdown", "is_allowed"), [("ü" * 50, True), ("ü" * 50 + "a", False), ("a" * 700, False)]
)
def test_the_limit_applies_to_the_markdown_in_utf8(
    markdown: str, is_allowed: bool, ensure_ascii: bool
) -> None:
    body = json.dumps(
        {"url": URL, "html": "x" * 1000, "markdown": markdown}, ensure_ascii=ensure_ascii
    ).encode()
    limits = Limits(max_document_bytes=100)
    if is_allowed:
        assert parse_document(body, limits).markdown == markdown
    else:
        assert rejection(body, limits)[0] == "document_too_large"


@pytest.mark.parametrize(
    ("lane", "meant"), [("HIGH", Lane.HIGH), (" low ", Lane.LOW), ("", None), (None, None)]
)
def test_lanes_are_read_in_any_case(lane: str | None, meant: Lane | None) -> None:
    assert parse(lane=lane).lane is meant


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [*Document.__struct_fields__, *Page.__struct_fields__, "isMobile", "html"],
)


@settings(deadline=None)
@given(st.dictionaries(names, json_values), st.booleans())
def test_any_fields_make_a_storable_document_or_a_rejection(
    fields: dict[str, Any], is_complete: bool
) -> None:
    body = json.dumps({**fields, **MINIMAL} if is_complete else fields).encode()
    try:
        document = parse_document(body)
    except RejectedError as error:
        assert error.reason.encode()  # noqa: PT017 - that it can be stored is the point
        return
    stored = msgspec.json.encode(document)
    assert b"\\u0000" not in stored.replace(rb"\\", b"")
    assert msgspec.json.decode(stored, type=Document) == document


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_make_a_document_or_a_rejection(body: bytes) -> None:
    assert rejection(body)[0] in {"malformed", "missing_url"}  # `{}` is an object
