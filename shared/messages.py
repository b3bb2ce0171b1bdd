"""What travels between the stages, and the only place that encodes and decodes it.

A stream entry has two fields. `h` is the header as JSON: who the documents are, readable with redis-cli,
enough to inspect, split or dead-letter an entry. `b` is the body as msgpack: chunk texts and vectors,
decoded only by the stage that works on them. Header and body list the same documents in the same order.
"""

import enum
from typing import Any

import msgspec

SCHEMA_VERSION = 1


class Lane(enum.StrEnum):
    """How urgent a document is; each lane has its own stream per stage."""

    HIGH = "high"  # single documents that somebody waits for
    NORMAL = "normal"  # crawls
    LOW = "low"  # bulk loads


class Action(enum.StrEnum):
    """What is to be done with a document."""

    INDEX = "index"
    DELETE = "delete"  # goes straight to the index stream, without a body


class DocumentRef(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a batch message: `(job_id, position, release)` is the key of every write about it."""

    job_id: str
    position: int
    release: int
    document_id: str
    version: int
    url: str
    action: Action = Action.INDEX
    crawl_id: str | None = None
    accepted_at: float = 0.0  # Unix seconds


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The field `h` of an entry: its documents, all of one lane and one target."""

    target: str
    lane: Lane
    documents: tuple[DocumentRef, ...]
    deliveries: int = 0  # carried over a split, so that crashes before it still count
    traceparent: str | None = None
    schema: int = SCHEMA_VERSION


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored beside every chunk of a document, as its author gave it."""

    title: str = ""
    description: str = ""
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    metadata: dict[str, Any] = {}


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a document. TEI and the keyword index see `prefix + text`; people see `text`."""

    text: str
    prefix: str  # page title and heading path, at most 48 tokens, with its separator; may be empty
    headings: tuple[str, ...]
    start: int  # characters into the cleaned markdown, end exclusive
    end: int
    tokens: int  # all that TEI sees: special tokens, prefix and text

    @property
    def embedded_text(self) -> str:
        return self.prefix + self.text


class ChunkedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document in the body of an entry of the embed streams."""

    page: Page
    content_hash: bytes  # sha256 of all that is stored, but for crawl_id and indexed_at
    chunks: tuple[Chunk, ...]


class EmbeddedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document in the body of an entry of the index streams."""

    document: ChunkedDocument
    vectors: bytes  # little-endian float32[len(chunks), dimension]
    dimension: int


type_of_body: dict[str, Any] = {
    "chunker": tuple[()],
    "embedder": tuple[ChunkedDocument, ...],
    "indexer": tuple[EmbeddedDocument, ...],
}
