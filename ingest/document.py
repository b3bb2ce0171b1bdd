"""One document, checked and made storable; or why it cannot be indexed.

Between a request's envelope (`firecrawl`, `bulk`) and a job's items. The codes of RejectedError: malformed,
missing_url, invalid_url, markdown_not_text, empty_markdown, document_too_large, metadata_not_object, invalid_lane,
invalid_collection; of Firecrawl's pages also scrape_failed and bad_status.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from ingest.canonical import canonical_url
from ingest.decoding import MalformedBodyError
from ingest.draft import Draft, is_given, raw_starts, read_draft
from ingest.override import read_collection, read_lane
from shared.errors import RejectedError
from shared.messages import Lane

# Stored beside every chunk, so that their length costs as often: the rest is cut off.
MAX_TITLE_CHARACTERS = 500
MAX_DESCRIPTION_CHARACTERS = 2000
MAX_TAG_CHARACTERS = 35  # language and country; RFC 5646 section 4.4.1

_markdown = msgspec.json.Decoder(str)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may hold."""

    max_document_bytes: int = 8 * 1024 * 1024  # markdown in UTF-8; html and the like are not kept, so not counted
    max_documents: int = 100_000  # bounds memory: 64 MB of `1,1,1` would be 32 million


DEFAULT_LIMITS = Limits()


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document that can be indexed. Its texts have no NUL and no lone surrogates: UTF-8, text and jsonb take them."""

    url: str  # as sent, but for blanks around it
    canonical_url: str
    markdown: str
    title: str = ""
    description: str = ""
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    metadata: dict[str, Any] = {}  # bounded, see ingest.metadata
    metadata_omitted: int = 0  # entries that were too large or nested too deep
    lane: Lane | None = None  # None: as the request says
    collection: str | None = None  # None: as the request says


class RejectedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that cannot be indexed."""

    position: int  # in the request, from 0
    url: str | None  # as far as it could be read
    code: str
    error: str


def parse_document(raw: bytes | msgspec.Raw, limits: Limits = DEFAULT_LIMITS) -> Document:
    """One document of the API. Raises RejectedError with the codes above, nothing else on any bytes."""
    return build_api_document(read_draft(raw), limits)


def parse_each(
    elements: Iterable[bytes | msgspec.Raw],
    read: Callable[[bytes | msgspec.Raw], Draft],
    build: Callable[[Draft], Document],
) -> list[Document | RejectedDocument]:
    """Parse every element by itself, in order; a bad one fails no other."""
    return [_parse_at(position, element, read, build) for position, element in enumerate(elements)]


def build_api_document(draft: Draft, limits: Limits) -> Document:
    """Judge a draft of the API, which may choose its own lane and collection. Raises RejectedError."""
    document = build_document(draft, limits)
    lane, collection = read_lane(draft.fields.lane), read_collection(draft.fields.collection)
    return msgspec.structs.replace(document, lane=lane, collection=collection)


def build_document(draft: Draft, limits: Limits, leave_out: AbstractSet[str] = frozenset()) -> Document:
    """Judge a draft and decode what is kept; `leave_out` names metadata that is not. Raises RejectedError."""
    url = require_url(draft)
    canonical = canonical_url(url)
    try:
        markdown = _read_markdown(draft.fields.markdown, limits.max_document_bytes)
        texts = _read_texts(draft)
        metadata, omitted = _read_metadata(draft.fields.metadata, leave_out)
    except MalformedBodyError as error:
        raise RejectedError("malformed", str(error)) from error
    return Document(
        url=url,
        canonical_url=canonical,
        markdown=markdown,
        is_mobile=_read_boolean(draft.fields.is_mobile or draft.fields.is_mobile_camel),
        metadata=metadata,
        metadata_omitted=omitted,
        **texts,
    )


def require_url(draft: Draft) -> str:
    """The draft's URL. Raises RejectedError `missing_url` or `invalid_url`."""
    if draft.url is not None:
        return draft.url
    if is_given(draft.fields.url) and not raw_starts(draft.fields.url, b'"'):
        raise RejectedError("invalid_url", "url must be text")
    raise RejectedError("missing_url", "the document has no url, and its metadata neither url nor sourceURL")
