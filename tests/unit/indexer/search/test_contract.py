import datetime as dt

import pytest
from qdrant_client import models

from indexer.qdrant.collection import PAYLOAD_INDEXES
from indexer.search.contract import InvalidSearchError, decode_request
from indexer.search.filters import qdrant_filter
from shared.service.search_contract import Collapse, Mode, SearchFilters, SearchRequest


def test_a_query_is_all_that_is_needed() -> None:
    assert decode_request(b'{"query": "fox"}') == SearchRequest(
        query="fox", mode=Mode.HYBRID, limit=10, offset=0, collapse=Collapse.DOCUMENT
    )


def test_names_may_be_snake_case_or_camel_case() -> None:
    snake = (
        b'{"query": "q", '
        b'"filters": {"url_prefix": "https://a", "is_mobile": true, "crawl_id": "c"}}'
    )
    camel = (
        b'{"query": "q", "filters": {"urlPrefix": "https://a", "isMobile": true, "crawlId": "c"}}'
    )
    assert decode_request(snake) == decode_request(camel)
    assert decode_request(camel).filters == SearchFilters(
        url_prefix="https://a", is_mobile=True, crawl_id="c"
    )


def test_bm25_is_a_synonym_of_keyword() -> None:
    assert decode_request(b'{"query": "q", "mode": "bm25"}').mode is Mode.KEYWORD


def test_the_query_is_brought_to_the_normal_form_of_stored_texts() -> None:
    assert decode_request('{"query": "nai\u0308ve"}'.encode()).query == "na\u00efve"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "truncated"),
        (b"[]", "expected `object`"),
        (b'{"query": ', "truncated"),
        (b'{"query": "\\ud800 is half a character"}', "surrogate"),
        (b'{"query": "\xff"}', "utf-8"),
        (b"{}", "query"),
        (b'{"query": ""}', "`query`"),
        (b'{"query": " \\n"}', "`query`"),
        (b'{"query": "%s"}' % (b"x" * 8001), "`query`"),
        (b'{"query": "q", "limit": 0}', "`limit`"),
        (b'{"query": "q", "limit": 101}', "`limit`"),
        (b'{"query": "q", "limit": "7"}', "`limit`"),
        (b'{"query": "q", "offset": -1}', "`offset`"),
        (b'{"query": "q", "offset": 191}', "200"),
        (b'{"query": "q", "mode": "magic"}', "`mode`"),
        (b'{"query": "q", "collapse": "none"}', "`collapse`"),
        (b'{"query": "q", "filter": {}}', "filter"),
        (b'{"query": "q", "filters": {"domian": "a"}}', "domian"),
        (b'{"query": "q", "filters": {"indexed_after": "yesterday"}}', "$.filters.indexed_after"),
        (b'{"query": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_place(body: bytes, named: str) -> None:
    with pytest.raises(InvalidSearchError) as caught:
        decode_request(body)
    assert named in str(caught.value).lower()


def test_the_last_page_of_the_window_can_be_asked_for() -> None:
    assert decode_request(b'{"query": "q", "offset": 100, "limit": 100}').offset == 100


def test_without_filters_there_is_no_condition() -> None:
    assert qdrant_filter(SearchFilters()) is None


def test_every_filter_becomes_a_condition() -> None:
    filters = SearchFilters(
        domain="Docs.Example.org",
        language="en",
        country="DE",
        is_mobile=False,
        url_prefix="https://docs.example.org/a",
        crawl_id="c1",
        indexed_after=dt.datetime(2024, 5, 1),  # noqa: DTZ001 - a request may leave the zone out
    )
    assert all(getattr(filters, name) is not None for name in filters.__struct_fields__)
    found = qdrant_filter(filters)
    assert found is not None
    assert isinstance(found.must, list)
    conditions = {
        c.key: c.match or c.range for c in found.must if isinstance(c, models.FieldCondition)
    }
    assert conditions == {
        "domain": models.MatchValue(value="docs.example.org"),
        "language": models.MatchValue(value="en"),
        "country": models.MatchValue(value="DE"),
        "is_mobile": models.MatchValue(value=False),
        "url": models.MatchPrefix(prefix="https://docs.example.org/a"),
        "crawl_id": models.MatchValue(value="c1"),
        "indexed_at": models.DatetimeRange(gt=dt.datetime(2024, 5, 1, tzinfo=dt.UTC)),
    }
    assert conditions.keys() <= PAYLOAD_INDEXES.keys(), (
        "a filter on a field without an index scans the collection"
    )


@pytest.mark.parametrize(
    ("prefix", "host"),
    [
        ("https://Docs.example.org/a", "docs.example.org"),
        ("http://docs.example.org:8080/a", "docs.example.org"),
        ("https://docs.example.org", None),  # of .organic, too
        ("https://user@docs.example.org/", None),
        ("https://[::1]/", None),
        ("https://b\u00fccher.example/", None),  # stored as xn--...
        ("file:///srv/", None),
    ],
)
def test_a_scan_for_a_prefix_is_narrowed_to_its_host_where_that_is_known(
    prefix: str, host: str | None
) -> None:
    found = qdrant_filter(SearchFilters(url_prefix=prefix), is_prefix_scanned=True)
    assert found is not None
    assert isinstance(found.must, list)
    conditions = {c.key: c.match for c in found.must if isinstance(c, models.FieldCondition)}
    narrowed = {"domain": models.MatchAny(any=[host, ""])} if host else {}
    assert conditions == {"url": models.MatchText(text=prefix), **narrowed}
