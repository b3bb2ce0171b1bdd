"""What a search request and its answer are: the JSON of POST /api/search, and nothing that runs it."""

import datetime as dt
import enum
import re
import unicodedata
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from indexer.search.ranking import WINDOW

MAX_QUERY_CHARACTERS = 8000

_CAMEL_HUMP = re.compile(r"(?<=[a-z])([A-Z])")


class InvalidSearchError(ValueError):
    """The request does not fit the contract; the text says where and how."""


class Mode(enum.StrEnum):
    """Which sides answer."""

    HYBRID = "hybrid"  # both, by reciprocal rank fusion
    SEMANTIC = "semantic"  # dense vectors, by cosine
    KEYWORD = "keyword"  # sparse vectors, by BM25

    @classmethod
    def _missing_(cls, value: object) -> "Mode | None":
        return cls.KEYWORD if value == "bm25" else None


class Collapse(enum.StrEnum):
    """What a result is."""

    DOCUMENT = "document"  # the best chunk of each document
    CHUNK = "chunk"  # every chunk that matched


class SearchFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that are given must hold; compared with what is stored, exactly."""

    domain: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    url_prefix: str | None = None
    crawl_id: str | None = None  # the crawl that last changed the page
    indexed_after: dt.datetime | None = None  # UTC if it has no zone


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search; `offset` and `limit` count results after collapsing."""

    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
    mode: Mode = Mode.HYBRID
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0
    collapse: Collapse = Collapse.DOCUMENT
    collection: str | None = None  # the default collection
    filters: SearchFilters = SearchFilters()


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk. `start` and `end` are characters of the cleaned page, `highlights` characters of `text`."""

    id: str
    url: str
    title: str
    description: str
    text: str
    score: float  # comparable within one answer only
    chunk_index: int
    start: int
    end: int
    headings: tuple[str, ...]
    highlights: tuple[tuple[int, int], ...]
    metadata: dict[str, Any]


class SearchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One page of results."""

    results: tuple[SearchResult, ...]
    total: int  # in the window of 200 hits per side, not in the collection
    query: str
    mode: Mode
    took_ms: float
    degraded: bool  # TEI is away: keywords alone answered; or Postgres: the newest version stood for the live one


def decode_request(body: bytes) -> SearchRequest:
    """Read a request; names may be snake_case or camelCase. Raises InvalidSearchError."""
    try:
        request = msgspec.convert(_with_snake_case_names(msgspec.json.decode(body)), SearchRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSearchError(str(error)) from error
    if not request.query.strip():
        raise InvalidSearchError("the query is blank - at `$.query`")
    if request.offset + request.limit > WINDOW:
        raise InvalidSearchError(f"offset + limit is over {WINDOW}: narrow the search with filters instead")
    # Stored texts are in normal form C.
    return msgspec.structs.replace(request, query=unicodedata.normalize("NFC", request.query))


def _with_snake_case_names(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {_CAMEL_HUMP.sub(r"_\1", name).lower(): _with_snake_case_names(inner) for name, inner in value.items()}
