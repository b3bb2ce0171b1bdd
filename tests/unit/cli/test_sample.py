"""The sample crawl: real pages with their licences, and the webhooks that bring them in."""

import gzip
import hashlib
import hmac
import itertools
import json
import re
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker.splitting.splitter import Splitter
from cli.sample import QUERIES, pages
from cli.sample.webhooks import events, sign
from ingest.documents.document import Document
from ingest.documents.firecrawl import EventKind, parse_webhook
from shared.tei.tokenizer import load_tokenizer

SECRET = "0123456789abcdef0123456789abcdef"
SITES = {"fastapi.tiangolo.com", "www.electronjs.org", "docs.astral.sh", "docs.pydantic.dev"}
STRAY_MARKUP = re.compile(r"///|--8<--|\{\{|\{%")


@pytest.fixture(scope="module")
def crawl() -> list[dict[str, Any]]:
    return pages()


@pytest.fixture(scope="module")
def sent(crawl: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(events(crawl, counting("id")))


def counting(prefix: str) -> Any:
    return map("{}-{}".format, itertools.repeat(prefix), itertools.count()).__next__


def test_every_page_has_a_url_a_text_and_a_title(crawl: list[dict[str, Any]]) -> None:
    assert 30 <= len(crawl) <= 60
    for page in crawl:
        assert set(page) == {"url", "markdown", "metadata"}
        assert page["metadata"]["url"] == page["metadata"]["sourceURL"] == page["url"]
        assert page["markdown"].strip()
        assert page["metadata"]["title"].strip()
        assert page["metadata"]["language"] == "en"
        assert page["metadata"]["statusCode"] == 200


def test_no_page_comes_twice(crawl: list[dict[str, Any]]) -> None:
    assert len({page["url"] for page in crawl}) == len(crawl)


def test_all_sites_are_there_in_number(crawl: list[dict[str, Any]]) -> None:
    hosts = [urlsplit(page["url"]).hostname for page in crawl]
    assert {host for host in hosts if hosts.count(host) >= 5} == SITES


def test_no_page_has_stray_markup_of_its_source(crawl: list[dict[str, Any]]) -> None:
    assert not [page["url"] for page in crawl if STRAY_MARKUP.search(page["markdown"])]


def test_the_crawl_is_small_enough_to_be_embedded_while_somebody_waits(
    crawl: list[dict[str, Any]],
) -> None:
    splitter = Splitter(load_tokenizer(None))
    chunks = sum(len(splitter.split(page["markdown"], page["metadata"]["title"])) for page in crawl)
    assert 200 < chunks < 700


def test_the_file_is_the_same_whenever_it_is_packed() -> None:
    packed = (resources.files("cli.sample") / "crawl.jsonl.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # no time stamp
    assert len(packed) < 200_000
    assert gzip.decompress(packed).endswith(b"\n")


def test_the_licence_of_every_site_is_named(crawl: list[dict[str, Any]]) -> None:
    note = (resources.files("cli.sample") / "LICENSE.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in note.splitlines() if line.startswith("| ")}
    for host in {urlsplit(page["url"]).hostname for page in crawl}:
        assert host is not None
        assert "Copyright (c)" in rows[host]
        assert "MIT" in rows[host]
    assert "Permission is hereby granted" in note
    assert f" {len(crawl)} pages" in note


def test_every_query_asks_for_a_page_of_the_crawl(crawl: list[dict[str, Any]]) -> None:
    assert len(QUERIES) == 3
    assert len({query.url for query in QUERIES}) == 3
    assert {query.url for query in QUERIES} <= {page["url"] for page in crawl}
    assert all(query.text.endswith("?") for query in QUERIES)


def test_a_crawl_is_announced_sent_page_by_page_and_ended(sent: list[dict[str, Any]]) -> None:
    kinds = [event["type"] for event in sent]
    assert kinds == ["crawl.started", *["crawl.page"] * (len(sent) - 2), "crawl.completed"]
    assert [event["data"] for event in (sent[0], sent[-1])] == [[], []]


def test_every_event_has_the_fields_of_firecrawl_and_its_own_id(sent: list[dict[str, Any]]) -> None:
    for event in sent:
        assert set(event) == {"success", "type", "id", "webhookId", "data", "metadata"}
        assert event["success"] is True
    assert len({event["id"] for event in sent}) == 1
    assert len({event["webhookId"] for event in sent}) == len(sent)


def test_a_page_event_carries_one_document_with_its_url_in_the_metadata(
    crawl: list[dict[str, Any]], sent: list[dict[str, Any]]
) -> None:
    for page, event in zip(crawl, sent[1:-1], strict=True):
        [document] = event["data"]
        assert set(document) == {"markdown", "metadata"}
        assert document["markdown"] == page["markdown"]
        assert {**page["metadata"], "scrapeId": document["metadata"]["scrapeId"]} == document[
            "metadata"
        ]


def test_the_pages_themselves_are_left_as_they_are() -> None:
    crawl = pages()
    list(events(crawl, counting("id")))
    assert crawl == pages()


def test_another_run_has_other_ids(crawl: list[dict[str, Any]]) -> None:
    first, second = (ids_of(events(crawl, counting(prefix))) for prefix in ("first", "second"))
    assert len(first) == len(second) == 1 + len(crawl) * 2 + 2
    assert not first & second


def test_ingest_understands_every_event(
    crawl: list[dict[str, Any]], sent: list[dict[str, Any]]
) -> None:
    understood = [parse_webhook(json.dumps(event).encode()) for event in sent]
    assert understood[0].kind is EventKind.LIFECYCLE
    documents = [document for event in understood for document in event.documents]
    assert [d.url for d in documents if isinstance(d, Document)] == [page["url"] for page in crawl]
    assert len({event.delivery for event in understood}) == len(sent)


@given(body=st.binary(max_size=200))
def test_a_signature_is_the_hmac_of_the_body(body: bytes) -> None:
    scheme, _, digest = sign(body, SECRET).partition("=")
    assert scheme == "sha256"
    assert hmac.compare_digest(digest, hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest())


def test_another_secret_and_another_body_sign_differently() -> None:
    assert len({sign(b"body", SECRET), sign(b"body", SECRET[::-1]), sign(b"Body", SECRET)}) == 3


def ids_of(crawl: Any) -> set[str]:
    found = set()
    for event in crawl:
        found |= {event["id"], event["webhookId"]}
        found |= {document["metadata"]["scrapeId"] for document in event["data"]}
    return found
