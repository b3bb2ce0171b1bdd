import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.documents.document import Document, Limits, RejectedDocument
from ingest.documents.firecrawl import (
    DOCUMENT_TYPES,
    LIFECYCLE_TYPES,
    PAGE_TYPES,
    DeliveryKind,
    EventKind,
    WebhookEvent,
    parse_webhook,
)
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Page

CRAWL = "550e8400-e29b-41d4-a716-446655440000"
SCRAPE = "550e8400-e29b-41d4-a716-446655440001"
WEBHOOK = "a1b2c3d4-0001-0000-0000-000000000000"
URL = "https://docs.example.com/guide"


def scraped(url: str = URL, **metadata: Any) -> dict[str, Any]:
    """A document as v1 and v2 send it."""
    return {
        "markdown": "# Guide\n\nHow to begin.",
        "links": [f"{url}#begin"],
        "metadata": {
            "title": "Guide",
            "description": "How to begin",
            "language": "en",
            "url": url,
            "sourceURL": url,
            "statusCode": 200,
            "contentType": "text/html",
            "scrapeId": SCRAPE,
            "proxyUsed": "basic",
            "cacheState": "hit",
            "cachedAt": "2025-09-03T21:11:25.636Z",
            "creditsUsed": 1,
            **metadata,
        },
    }


def v0_link(url: str = URL) -> dict[str, Any]:
    """A document as v0 sends it: inside `content`, with names of its own."""
    metadata = {"title": "Guide", "sourceURL": url, "pageStatusCode": 200, "pageError": None}
    return {
        "content": {"content": "<h1>Guide</h1>", "markdown": "# Guide", "metadata": metadata},
        "source": url,
    }


def event(kind: str = "crawl.page", data: Any = None, **fields: Any) -> WebhookEvent:
    envelope = {
        "success": True,
        "type": kind,
        "id": CRAWL,
        "webhookId": WEBHOOK,
        "data": data,
        "metadata": {},
        **fields,
    }
    return parse_webhook(json.dumps(envelope).encode())


def accepted(found: WebhookEvent) -> list[Document]:
    assert all(isinstance(document, Document) for document in found.documents), found.documents
    return [document for document in found.documents if isinstance(document, Document)]


def rejected(found: WebhookEvent) -> list[RejectedDocument]:
    assert all(isinstance(document, RejectedDocument) for document in found.documents), (
        found.documents
    )
    return [document for document in found.documents if isinstance(document, RejectedDocument)]


@pytest.mark.parametrize("kind", sorted(PAGE_TYPES))
def test_a_page_of_v1_and_v2_is_one_document(kind: str) -> None:
    found = event(kind, [scraped()])
    (document,) = accepted(found)
    assert (found.kind, found.type, found.crawl_id, found.ending) == (
        EventKind.DOCUMENTS,
        kind,
        CRAWL,
        None,
    )
    assert document == Document(
        url=URL, canonical_url=URL, markdown="# Guide\n\nHow to begin.",
        page=Page(
            title="Guide", description="How to begin", language="en",
            metadata={
                "title": "Guide", "description": "How to begin", "language": "en", "url": URL,
                "sourceURL": URL, "statusCode": 200, "contentType": "text/html",
            },
        ),
    )  # fmt: skip


def test_two_scrapes_of_an_unchanged_page_give_equal_documents() -> None:
    again = scraped(
        scrapeId="other", cacheState="miss", creditsUsed=5, cachedAt="2026-01-01T00:00:00Z"
    )
    assert event(data=[scraped()]).documents == event(data=[again]).documents


def test_v0_sends_all_documents_with_completed() -> None:
    body = {
        "success": True,
        "type": "crawl.completed",
        "jobId": CRAWL,
        "data": [v0_link(), v0_link(f"{URL}/2")],
    }
    found = parse_webhook(json.dumps(body).encode())
    assert found.crawl_id == CRAWL
    assert [document.url for document in accepted(found)] == [URL, f"{URL}/2"]
    assert [document.markdown for document in accepted(found)] == ["# Guide", "# Guide"]


def test_the_source_of_a_v0_document_is_its_default_url() -> None:
    link = v0_link()
    link["content"]["metadata"] = {}
    assert accepted(event("batch_scrape.completed", [link]))[0].url == URL


def test_data_may_be_one_document() -> None:
    assert len(accepted(event(data=scraped()))) == 1


def test_a_body_without_type_is_a_batch_of_documents() -> None:
    found = parse_webhook(
        json.dumps(
            {"success": True, "data": [scraped(), {**scraped(), "url": f"{URL}/own"}]}
        ).encode()
    )
    assert (found.kind, found.type, found.crawl_id) == (EventKind.DOCUMENTS, None, None)
    assert [document.url for document in accepted(found)] == [URL, f"{URL}/own"]


@pytest.mark.parametrize(
    "kind", ["crawl.completed", "batch_scrape.completed", "crawl.failed", "crawl.cancelled"]
)
@pytest.mark.parametrize("data", [[], None])
def test_an_ending_of_v1_and_v2_has_no_documents(kind: str, data: Any) -> None:
    found = event(kind, data)
    assert (found.kind, found.documents, found.ending) == (EventKind.DOCUMENTS, [], kind)


@pytest.mark.parametrize("kind", sorted(LIFECYCLE_TYPES))
def test_a_lifecycle_event_has_no_documents(kind: str) -> None:
    for data in ([], [scraped()], {"extractedJson": {"a": 1}}, "text", 5):
        found = event(kind, data)
        assert (found.kind, found.documents, found.crawl_id) == (EventKind.LIFECYCLE, [], CRAWL)


def test_an_unknown_type_is_acknowledged_as_unknown() -> None:
    found = event("crawl.reviewed", {"anything": [scraped()]})
    assert (found.kind, found.type, found.documents) == (EventKind.UNKNOWN, "crawl.reviewed", [])


def test_a_failed_page_is_rejected_with_the_reason() -> None:
    found = event(data=[{"metadata": {"sourceURL": URL}}], success=False, error="DNS lookup failed")
    assert rejected(found) == [
        RejectedDocument(position=0, url=URL, code="scrape_failed", error="DNS lookup failed")
    ]


@pytest.mark.parametrize("data", [[], None])
def test_a_failed_page_without_data_is_recorded_too(data: Any) -> None:
    found = event("batch_scrape.page", data, success=False)
    assert rejected(found) == [
        RejectedDocument(
            position=0, url=None, code="scrape_failed", error="the event has no `error`"
        )
    ]


def test_the_documents_of_a_failed_crawl_are_accepted() -> None:
    assert (
        len(accepted(event("crawl.failed", [scraped()], success=False, error="out of credits")))
        == 1
    )


@pytest.mark.parametrize(
    "metadata",
    [{"statusCode": 404, "error": "Not Found"}, {"statusCode": "404", "pageError": "Not Found"}],
)
def test_a_page_that_did_not_answer_with_2xx_is_rejected(metadata: dict[str, Any]) -> None:
    (document,) = rejected(event(data=[scraped(**metadata)]))
    assert (document.code, document.error) == (
        "bad_status",
        "the page had HTTP status 404: Not Found",
    )


@pytest.mark.parametrize("name", ["statusCode", "status_code", "pageStatusCode"])
@pytest.mark.parametrize(
    ("status", "is_good"), [(200, True), (299, True), (199, False), (304, False), (0, False)]
)
def test_every_spelling_of_the_status_counts(name: str, status: int, is_good: bool) -> None:
    page = {"markdown": "a", "metadata": {"url": URL, name: status}}
    assert isinstance(event(data=[page]).documents[0], Document) is is_good


def test_neither_status_nor_metadata_url_is_required() -> None:
    assert (
        accepted(
            event(data=[{"markdown": "a", "metadata": {"sourceURL": URL, "statusCode": None}}])
        )[0].url
        == URL
    )
    assert accepted(event(data=[{"markdown": "a", "url": URL}]))[0].url == URL


def test_a_page_with_an_error_and_no_markdown_failed() -> None:
    (document,) = rejected(event(data=[{"metadata": {"sourceURL": URL, "error": "timeout"}}]))
    assert (document.code, document.error) == ("scrape_failed", "timeout")


def test_a_page_cannot_choose_its_lane_or_collection() -> None:
    page = {**scraped(lane="high", collection="x"), "lane": "high", "collection": "../x"}
    (document,) = accepted(event(data=[page]))
    assert (document.lane, document.collection) == (None, None)


def test_one_bad_document_fails_no_other() -> None:
    bad = [
        {"markdown": 5, "url": URL},
        5,
        None,
        [],
        {},
        {"markdown": "a", "url": "nowhere"},
        {**scraped(), "metadata": 1},
    ]
    found = event("crawl.completed", [scraped(), *bad, scraped()])
    assert isinstance(found.documents[0], Document)
    assert isinstance(found.documents[-1], Document)
    failed = [document for document in found.documents if isinstance(document, RejectedDocument)]
    assert [document.position for document in failed] == list(range(1, 8))
    assert [document.code for document in failed] == [
        "markdown_not_text",
        "malformed",
        "malformed",
        "malformed",
        "missing_url",
        "invalid_url",
        "metadata_not_object",
    ]


@pytest.mark.parametrize("lone", [0xD83D, 0xDE00])
def test_a_lone_surrogate_in_one_document_fails_none(lone: int) -> None:
    broken = {**scraped(), "markdown": f"a{chr(lone)}b", "html": chr(lone)}
    found = accepted(event("crawl.completed", [*[scraped()] * 49, broken]))
    assert len(found) == 50
    assert found[49].markdown == "a\ufffdb"


@pytest.mark.parametrize("levels", [200, 900, 5000])
def test_deep_nesting_in_one_document_fails_none(levels: int) -> None:
    good = json.dumps(scraped()).encode()
    deep = good[:-1] + b',"json":' + b'{"a":[' * levels + b"]}" * levels + b"}"
    assert len(accepted(parse_webhook(b'{"data":[' + b",".join([good, deep, good]) + b"]}"))) == 3


def test_invalid_utf8_fails_its_document_alone() -> None:
    good = json.dumps(scraped()).encode()
    found = parse_webhook(b'{"data":[' + good + b"," + good.replace(b"How to", b"\xff") + b"]}")
    assert [type(document) for document in found.documents] == [Document, RejectedDocument]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "object"),
        (b"5", "object"),
        (b"null", "object"),
        (b"{}", "neither `type` nor `data`"),
        (b'{"success":false}', "neither `type` nor `data`"),
        (b'{"data":5}', "`data`: expected"),
        (b'{"type":"crawl.page","data":"text"}', "`data`: expected"),
        (b'{"type":5,"data":[]}', "`type`: expected text"),
        (b'{"type":" ","data":[]}', "`type`: expected text"),
    ],
)
def test_json_of_the_wrong_shape_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(UnprocessableBodyError, match=reason):
        parse_webhook(body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"data":[}', b"\xff", b'{"type":"\xff"}', b'{"data":[]} x']
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        parse_webhook(body)


def test_the_number_of_documents_is_bounded_before_they_are_built() -> None:
    with pytest.raises(UnprocessableBodyError, match="1,000,000 documents"):
        parse_webhook(b'{"data":[' + b"1," * 999_999 + b"1]}")
    commas = json.dumps({"data": [{**scraped(), "markdown": ",[" * 100}]}).encode()
    assert len(accepted(parse_webhook(commas, Limits(max_documents=1)))) == 1


def test_a_delivery_is_known_by_its_webhook_id() -> None:
    first, other = event(data=[scraped()]), event(data=[scraped(title="changed")])
    assert first.delivery == other.delivery
    assert (first.delivery.kind, first.delivery.key) == (DeliveryKind.WEBHOOK_ID, WEBHOOK)


def test_without_webhook_id_it_is_known_by_crawl_type_and_scrape() -> None:
    for found in (
        event(data=[scraped()], webhookId=None),
        event(data=scraped(), webhookId="", id=None, jobId=CRAWL),
    ):
        assert found.delivery.kind is DeliveryKind.SCRAPE_ID
        assert found.delivery.key == f"crawl.page/{CRAWL}/{SCRAPE}"
    other = event(data=[scraped(scrapeId="other")], webhookId=None)
    assert other.delivery.key == f"crawl.page/{CRAWL}/other"


@pytest.mark.parametrize(
    "envelope",
    [
        {"type": "crawl.page", "id": CRAWL, "data": [scraped(scrapeId=None)]},
        {"type": "crawl.page", "data": [scraped()]},
        {"id": CRAWL, "data": [scraped()]},
        {"type": "crawl.completed", "id": CRAWL, "data": [scraped(), scraped()]},
        {"type": "crawl.started", "id": CRAWL},
    ],
)
def test_without_ids_it_is_known_by_the_hash_of_its_body(envelope: dict[str, Any]) -> None:
    body = json.dumps(envelope).encode()
    delivery = parse_webhook(body).delivery
    assert (delivery.kind, delivery.key) == (DeliveryKind.BODY, hashlib.sha256(body).hexdigest())


def test_keys_are_short_and_of_different_parts_never_equal() -> None:
    split = [
        event(data=[scraped(scrapeId=s)], webhookId=None, id=i).delivery.key
        for i, s in (("a/b", "c"), ("a", "b/c"))
    ]
    assert split[0] != split[1]
    long = [event(webhookId="ü" * 400 + end).delivery.key for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) <= 256


def test_numbers_are_ids_too() -> None:
    found = event(id=42, webhookId=7)
    assert (found.crawl_id, found.delivery.key) == ("42", "7")


def test_the_metadata_of_the_request_chooses_lane_and_collection() -> None:
    found = event(
        data=[scraped()], metadata={"lane": "LOW", "collection": "books", "anything": "else"}
    )
    assert (found.lane, found.collection, found.ignored) == (Lane.LOW, "books", ())


def test_an_invalid_lane_or_collection_is_ignored_and_reported() -> None:
    found = event(data=[scraped()], metadata={"lane": "urgent", "collection": 5})
    assert len(accepted(found)) == 1
    assert (found.lane, found.collection) == (None, None)
    assert [sentence.split("`")[1] for sentence in found.ignored] == ["lane", "collection"]


@pytest.mark.parametrize("metadata", ["text", 5, [], None])
def test_metadata_of_the_wrong_shape_chooses_nothing(metadata: Any) -> None:
    found = event(data=[scraped()], metadata=metadata)
    assert (found.lane, found.collection, found.ignored) == (None, None, ())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["\ud83d", "\0", URL, "lane"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
pages = st.fixed_dictionaries(
    {},
    optional={
        "url": json_values | st.just(URL),
        "markdown": json_values,
        "content": json_values,
        "source": json_values,
        "metadata": json_values
        | st.dictionaries(st.sampled_from(sorted(scraped()["metadata"])), json_values),
    },
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(sorted(DOCUMENT_TYPES | LIFECYCLE_TYPES)) | json_values,
        "id": json_values,
        "jobId": json_values,
        "webhookId": json_values,
        "success": json_values,
        "error": json_values,
        "data": json_values | pages | st.lists(pages | json_values, max_size=4),
        "metadata": json_values,
    },
)


@settings(deadline=None)
@given(envelopes.map(lambda envelope: json.dumps(envelope).encode()) | st.binary())
@example(b"[" * 5000)
@example(b'{"data":' + b"[" * 5000)
@example(b'{"id":"\\ud83d","data":[]}')
def test_no_body_raises_anything_else_and_what_is_found_can_be_stored(body: bytes) -> None:
    try:
        found = parse_webhook(body)
    except (MalformedBodyError, UnprocessableBodyError) as error:
        assert str(error).encode()  # noqa: PT017 - that it can be sent is the point
        return
    stored = msgspec.json.encode(found)
    assert b"\\u0000" not in stored.replace(rb"\\", b"")
    assert parse_webhook(body) == found


@settings(deadline=None)
@given(st.data())
def test_a_body_that_is_damaged_anywhere_raises_nothing_else(data: st.DataObject) -> None:
    body = bytearray(
        json.dumps({"type": "crawl.page", "id": CRAWL, "data": [scraped(), v0_link()]}).encode()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
        if not body:
            return
    try:
        parse_webhook(bytes(body))
    except (MalformedBodyError, UnprocessableBodyError) as error:
        assert str(error).encode()  # noqa: PT017 - that it can be sent is the point
