"""One document, validated and made storable, or the reason why it cannot be indexed.

Between the envelope of a request (`firecrawl`, `bulk`) and the items of a job. The codes of
RejectedError: malformed, missing_url, invalid_url, markdown_not_text, empty_markdown,
document_too_large, metadata_not_object, invalid_lane, invalid_collection; of pages of Firecrawl
also scrape_failed and bad_status.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from ingest.documents.canonical import MAX_URL_CHARACTERS, canonical_url
from ingest.documents.decoding import decode
from ingest.documents.draft import (
    Draft,
    first_text,
    is_given,
    is_object,
    raw_starts,
    rejecting_malformed,
)
from ingest.documents.metadata import keep_metadata
from ingest.documents.override import read_collection, read_lane
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Page
from shared.service.errors import RejectedError

# Stored with every chunk; longer texts are truncated.
MAX_TITLE_CHARACTERS = 500
MAX_DESCRIPTION_CHARACTERS = 2000
MAX_TAG_CHARACTERS = 35  # language and country; RFC 5646 section 4.4.1

_markdown = msgspec.json.Decoder(str)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one request."""

    max_document_bytes: int = 8 * 1024 * 1024  # markdown in UTF-8; other fields are not stored
    max_documents: int = 100_000  # bounds memory: 64 MB of `1,1,1` are 32 million elements


DEFAULT_LIMITS = Limits()


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document that can be indexed.

    Its texts have no NUL and no lone surrogates, which UTF-8, text and jsonb do not accept.
    """

    url: str  # as sent, without surrounding blanks
    canonical_url: str
    markdown: str
    page: Page = Page()  # its metadata is bounded (metadata.py)
    metadata_omitted: int = 0  # entries that were too large or too deeply nested
    lane: Lane | None = None  # None: the lane of the request
    collection: str | None = None  # None: the collection of the request


class RejectedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that cannot be indexed."""

    position: int  # in the request, from 0
    url: str | None  # if it could be read
    code: str
    error: str


def parse_each(
    elements: Iterable[bytes | msgspec.Raw],
    read: Callable[[bytes | msgspec.Raw], Draft],
    build: Callable[[Draft], Document],
) -> list[Document | RejectedDocument]:
    """Parse every element, in order; an invalid one does not affect the others."""
    return [_parse_at(position, element, read, build) for position, element in enumerate(elements)]


def build_api_document(draft: Draft, limits: Limits) -> Document:
    """Validate a draft of the API, which may have a lane and a collection. Raises RejectedError."""
    document = build_document(draft, limits)
    lane, collection = read_lane(draft.fields.lane), read_collection(draft.fields.collection)
    return msgspec.structs.replace(document, lane=lane, collection=collection)


def build_document(
    draft: Draft, limits: Limits, leave_out: AbstractSet[str] = frozenset()
) -> Document:
    """Validate a draft and decode its stored fields; `leave_out` names metadata to drop.

    Raises RejectedError.
    """
    fields = draft.fields
    url = require_url(draft)
    canonical = canonical_url(url)
    with rejecting_malformed():
        metadata, omitted = _read_metadata(fields.metadata, leave_out)
        return Document(
            url=url,
            canonical_url=canonical,
            markdown=_read_markdown(fields.markdown, limits.max_document_bytes),
            page=_read_page(draft, metadata),
            metadata_omitted=omitted,
        )


def _read_page(draft: Draft, metadata: dict[str, Any]) -> Page:
    fields, known = draft.fields, draft.known
    return Page(
        title=_cut(
            MAX_TITLE_CHARACTERS, fields.title, known.title, known.og_title, known.og_title_snake
        ),
        description=_cut(
            MAX_DESCRIPTION_CHARACTERS,
            *(
                fields.description,
                known.description,
                known.og_description,
                known.og_description_snake,
            ),
        ),
        language=_read_tag(fields.language, known.language),
        country=_read_tag(fields.country),
        is_mobile=_read_boolean(fields.is_mobile or fields.is_mobile_camel),
        metadata=metadata,
    )


def require_url(draft: Draft) -> str:
    """The URL of a draft. Raises RejectedError `missing_url` or `invalid_url`."""
    if draft.url is not None:
        return draft.url
    if is_given(draft.fields.url) and bytes(draft.fields.url) != b'""':
        raise RejectedError(
            "invalid_url",
            f"invalid value for `url`: expected text of at most {MAX_URL_CHARACTERS:,} characters",
        )
    raise RejectedError(
        "missing_url", "the document has no `url`, and its metadata neither `url` nor `sourceURL`"
    )


def _parse_at(
    position: int,
    element: bytes | msgspec.Raw,
    read: Callable[[bytes | msgspec.Raw], Draft],
    build: Callable[[Draft], Document],
) -> Document | RejectedDocument:
    url = None
    try:
        draft = read(element)
        url = draft.url
        return build(draft)
    except RejectedError as error:
        shown = url[:MAX_URL_CHARACTERS] if url else None
        return RejectedDocument(position=position, url=shown, code=error.code, error=error.reason)


def _read_markdown(raw: msgspec.Raw, limit: int) -> str:
    if not is_given(raw):
        raise RejectedError("empty_markdown", "the document has no `markdown`")
    if not raw_starts(raw, b'"'):
        raise RejectedError("markdown_not_text", "invalid value for `markdown`: expected text")
    # JSON has one to six bytes for one of UTF-8 (`\u0041`): most sizes need no encoding.
    if len(raw) > 6 * limit + 2:
        raise _too_large(len(raw), limit)
    markdown = decode(_markdown, raw).replace("\0", "")
    if len(raw) > limit and (size := len(markdown.encode())) > limit:
        raise _too_large(size, limit)
    if not markdown or markdown.isspace():
        raise RejectedError("empty_markdown", "the `markdown` is blank")
    return markdown


def _too_large(size: int, limit: int) -> RejectedError:
    return RejectedError(
        "document_too_large", f"the markdown has {size:,} bytes: at most {limit:,} are allowed"
    )


def _read_metadata(raw: msgspec.Raw, leave_out: AbstractSet[str]) -> tuple[dict[str, Any], int]:
    return keep_metadata(raw, leave_out) if is_object(raw) else ({}, 0)


def _cut(characters: int, *candidates: msgspec.Raw) -> str:
    return (first_text(*candidates) or "")[:characters]


def _read_tag(*candidates: msgspec.Raw) -> str | None:
    tag = first_text(*candidates)
    # A longer text is not a tag, and a truncated one is useless.
    return tag if tag and len(tag) <= MAX_TAG_CHARACTERS else None


def _read_boolean(raw: msgspec.Raw) -> bool | None:
    return {b"true": True, b"false": False}.get(bytes(raw))
