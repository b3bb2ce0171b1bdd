"""The messages between the stages. They are encoded and decoded only here.

A stream entry has two fields. `h` is the header as JSON: the identity of the documents, readable
with redis-cli, enough to inspect, split or dead-letter an entry. `b` is the body as msgpack: chunk
texts and vectors, decoded only by the stage that works on them. Header and body list the same
documents in the same order.
"""

import enum
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from shared.pipeline.lanes import Lane
from shared.service.errors import MillstreamError, RejectedError

SCHEMA_VERSION = 1

T = TypeVar("T")


class Action(enum.StrEnum):
    """What is to be done with a document."""

    INDEX = "index"
    DELETE = "delete"  # goes straight to the index stream, without a body


class DocumentRef(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a batch message.

    `(job_id, position, release)` is the key of every write about it.
    """

    job_id: str
    position: int
    release: int
    document_id: str
    version: int
    url: str
    action: Action = Action.INDEX
    domain: str = ""
    crawl_id: str | None = None
    # Of the request that brought it, if that was traced.
    traceparent: str | msgspec.UnsetType = msgspec.UNSET


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The field `h` of an entry: its documents, all of one lane and one target."""

    target: str
    lane: Lane
    documents: tuple[DocumentRef, ...]
    deliveries: int = 0  # carried over a split, so that crashes before it still count
    traceparent: str | None = None  # of the stage that wrote it
    schema: int = SCHEMA_VERSION


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a document's author says of it.

    Ingest reads it, every chunk's payload and every search result has it.

    The names are those of the payload; a field that is added has a default.
    """

    title: str = ""
    description: str = ""
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    metadata: dict[str, Any] = {}


class StoredDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document's text as ingest keeps it in Postgres, sanitised, until a chunker loads it."""

    markdown: str
    page: Page


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
    fingerprint: bytes  # sha256 of how it was processed: target, chunking, tokenizer
    chunks: tuple[Chunk, ...]


class EmbeddedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document in the body of an entry of the index streams."""

    document: ChunkedDocument
    vectors: bytes  # little-endian float32[len(chunks), dimension]
    dimension: int


class EncodedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The two fields of an entry, as they travel."""

    header: bytes
    body: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.header) + len(self.body)


class MalformedMessageError(RejectedError):
    """The bytes are not a message. No retry can help."""

    def __init__(self, reason: str) -> None:
        super().__init__("malformed", reason)


class NewerSchemaError(MillstreamError):
    """The message is of a later release; a newer worker must take it."""


class _Version(msgspec.Struct, frozen=True):
    """What the headers of all releases have, whatever else changes."""

    schema: int = 1


class HeaderSummary(_Version, frozen=True, kw_only=True):
    """What a header says without its documents being decoded."""

    documents: tuple[msgspec.Raw, ...]
    deliveries: int = 0

    @property
    def is_newer(self) -> bool:
        """Whether it is of a later release than this one."""
        return self.schema > SCHEMA_VERSION


_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

_version_decoder = msgspec.json.Decoder(_Version)
_summary_decoder = msgspec.json.Decoder(HeaderSummary)
_header_decoder = msgspec.json.Decoder(Header)
_body_decoder = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])
_body_encoder = msgspec.msgpack.Encoder()


def encode_header(header: Header) -> bytes:
    return msgspec.json.encode(header)


def decode_header(data: bytes | None) -> Header:
    """Raises MalformedMessageError, or NewerSchemaError for a header of a later release."""
    summary = summarize_header(data)
    if summary.is_newer:
        raise NewerSchemaError(f"schema {summary.schema} is newer than {SCHEMA_VERSION}")
    try:
        return _header_decoder.decode(data or b"")
    except _UNREADABLE as error:
        raise MalformedMessageError(f"the header cannot be read: {error}") from error


def summarize_header(header: bytes | None) -> HeaderSummary:
    """Read a header of any release. One that cannot be read counts as one document."""
    try:
        return _summary_decoder.decode(header or b"")
    except _UNREADABLE:
        return HeaderSummary(documents=(msgspec.Raw(),), schema=_schema_of(header))


def _schema_of(header: bytes | None) -> int:
    try:
        return _version_decoder.decode(header or b"").schema
    except _UNREADABLE:
        return SCHEMA_VERSION


def encode_body(parts: Sequence[Any]) -> bytes:
    """The body of an entry, from a document's part each; parts may be encoded already
    (msgspec.Raw).
    """
    return _body_encoder.encode(parts)


def pack(
    header: Header, documents: Sequence[tuple[DocumentRef, Any]], most_bytes: int
) -> list[EncodedMessage]:
    """Make messages with this header of documents and their parts, in order.

    The parts of one message have at most `most_bytes`; a document with more has one of its own.
    """
    groups: list[list[tuple[DocumentRef, msgspec.Raw]]] = []
    room = 0
    for ref, part in documents:
        encoded = msgspec.Raw(_body_encoder.encode(part))
        if not groups or len(encoded) > room:
            groups.append([])
            room = most_bytes
        groups[-1].append((ref, encoded))
        room -= len(encoded)
    return [
        EncodedMessage(
            header=encode_header(
                msgspec.structs.replace(header, documents=tuple(ref for ref, _ in group))
            ),
            body=encode_body([part for _, part in group]),
        )
        for group in groups
    ]


def body_parts(data: bytes, documents: int) -> Sequence[msgspec.Raw | None]:
    """The part of each document, not decoded yet; all None for an entry without a body.

    Raises MalformedMessageError if there are not exactly `documents` parts.
    """
    if not data:
        return [None] * documents
    try:
        parts = _body_decoder.decode(data)
    except _UNREADABLE as error:
        raise MalformedMessageError(f"the body cannot be read: {error}") from error
    if len(parts) != documents:
        raise MalformedMessageError(f"the body has {len(parts)} documents, the header {documents}")
    return parts


def decode_part(data: msgspec.Raw | None, kind: type[T]) -> T:
    """One document's part of a body. Raises MalformedMessageError."""
    try:
        return msgspec.msgpack.decode(data or b"", type=kind)
    except _UNREADABLE as error:
        raise MalformedMessageError(
            f"a document's part of the body cannot be read: {error}"
        ) from error
