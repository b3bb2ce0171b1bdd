"""The JSON of POST /api/search, which the indexer serves and ingest forwards to it."""

import datetime as dt
import enum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.service.parameters import CollectionName

MAX_QUERY_CHARACTERS = 8000


class Mode(enum.StrEnum):
    """The sides that are searched."""

    HYBRID = "hybrid"  # both, by reciprocal rank fusion
    SEMANTIC = "semantic"  # dense vectors, by cosine
    KEYWORD = "keyword"  # sparse vectors, by BM25

    @classmethod
    def _missing_(cls, value: object) -> "Mode | None":
        return cls.KEYWORD if value == "bm25" else None


class Collapse(enum.StrEnum):
    """The unit of a result."""

    DOCUMENT = "document"  # the best chunk of each document
    CHUNK = "chunk"  # every chunk that matched


class SearchFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exact conditions on a page; all that are given must hold."""

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
    collection: CollectionName | None = None  # None: the default collection
    filters: SearchFilters = SearchFilters()


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk.

    `start` and `end` are characters of the cleaned page, `highlights` characters of `text`.
    """

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
    # TEI was unavailable and only keywords were searched; or Postgres, and the newest version
    # replaced the live one.
    degraded: bool
