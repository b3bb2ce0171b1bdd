"""A document taken apart: the fields that are looked at, undecoded, from the API's form and from Firecrawl's.

camelCase and snake_case. html, links or screenshots are skipped as bytes. `document` judges what is found here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError, decode
from shared.service.errors import RejectedError

_MAX_SHORT_TEXT_BYTES = 64 * 1024  # undecoded; no title, id or error worth reading is longer
_ABSENT = msgspec.Raw(b"")


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """A document's own fields; an empty Raw is an absent one."""

    url: msgspec.Raw = _ABSENT
    markdown: msgspec.Raw = _ABSENT
    title: msgspec.Raw = _ABSENT
    description: msgspec.Raw = _ABSENT
    language: msgspec.Raw = _ABSENT
    country: msgspec.Raw = _ABSENT
    is_mobile: msgspec.Raw = _ABSENT
    is_mobile_camel: msgspec.Raw = msgspec.field(name="isMobile", default=_ABSENT)
    metadata: msgspec.Raw = _ABSENT
    lane: msgspec.Raw = _ABSENT
    collection: msgspec.Raw = _ABSENT
    content: msgspec.Raw = _ABSENT  # Firecrawl v0 wraps: {content: {markdown, metadata}, source: url}
    source: msgspec.Raw = _ABSENT


class KnownMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The metadata that crawlers set; the snake_case names are those of Firecrawl's Python client."""

    url: msgspec.Raw = _ABSENT
    source_url: msgspec.Raw = msgspec.field(name="sourceURL", default=_ABSENT)
    source_url_snake: msgspec.Raw = msgspec.field(name="source_url", default=_ABSENT)
    title: msgspec.Raw = _ABSENT
    og_title: msgspec.Raw = _ABSENT
    og_title_snake: msgspec.Raw = msgspec.field(name="og_title", default=_ABSENT)
    description: msgspec.Raw = _ABSENT
    og_description: msgspec.Raw = _ABSENT
    og_description_snake: msgspec.Raw = msgspec.field(name="og_description", default=_ABSENT)
    language: msgspec.Raw = _ABSENT
    status_code: msgspec.Raw = _ABSENT
    status_code_snake: msgspec.Raw = msgspec.field(name="status_code", default=_ABSENT)
    page_status_code: msgspec.Raw = _ABSENT  # v0
    error: msgspec.Raw = _ABSENT
    page_error: msgspec.Raw = _ABSENT  # v0
    scrape_id: msgspec.Raw = _ABSENT
    scrape_id_snake: msgspec.Raw = msgspec.field(name="scrape_id", default=_ABSENT)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A document that is taken apart, but not yet judged."""

    fields: Fields
    known: KnownMetadata
    url: str | None  # its own, else its metadata's; None if there is none that is text


_fields = msgspec.json.Decoder(Fields)
_known_metadata = msgspec.json.Decoder(KnownMetadata)
_string = msgspec.json.Decoder(str)
_list = msgspec.json.Decoder(list[msgspec.Raw])


def take_apart(raw: bytes | msgspec.Raw) -> Draft:
    """Find a document's fields. Raises as `decode`, and RejectedError `metadata_not_object`."""
    fields = decode(_fields, raw)
    if is_given(fields.metadata) and not is_object(fields.metadata):
        raise RejectedError("metadata_not_object", "metadata must be a JSON object")
    known = decode(_known_metadata, fields.metadata) if is_object(fields.metadata) else KnownMetadata()
    url = first_text(fields.url, known.url, known.source_url, known.source_url_snake)
    return Draft(fields=fields, known=known, url=url)


def read_draft(raw: bytes | msgspec.Raw) -> Draft:
    """As `take_apart`, of a document among others: raises RejectedError alone."""
    with rejecting_malformed():
        return take_apart(raw)


def read_page(raw: bytes | msgspec.Raw) -> Draft:
    """As `read_draft`, for Firecrawl's pages: also v0's `{content: document, source: url}`."""
    outer = read_draft(raw)
    if outer.fields.markdown or not is_object(outer.fields.content):
        return outer
    inner = read_draft(outer.fields.content)
    with rejecting_malformed():
        return msgspec.structs.replace(inner, url=inner.url or first_text(outer.fields.source))


@contextmanager
def rejecting_malformed() -> Iterator[None]:
    """Inside, what cannot be decoded is the document's own fault: RejectedError `malformed`."""
    try:
        yield
    except MalformedBodyError as error:
        raise RejectedError("malformed", str(error)) from error
    except UnprocessableBodyError as error:
        raise RejectedError("malformed", "the document is not a JSON object") from error


def first_text(*candidates: msgspec.Raw) -> str | None:
    """The first of these values that is text and not blank, trimmed and without NUL.

    Of a list it takes the first such text: Firecrawl gives one when a page repeats a meta tag. Raises
    MalformedBodyError.
    """
    for raw in candidates:
        for text in _texts(raw):
            if trimmed := text.replace("\0", "").strip():
                return trimmed
    return None


def is_object(raw: msgspec.Raw) -> bool:
    """Whether the value is a JSON object."""
    return raw_starts(raw, b"{")


def is_given(raw: msgspec.Raw) -> bool:
    """Whether there is a value other than null."""
    return bool(raw) and not raw_starts(raw, b"n")


def raw_starts(raw: msgspec.Raw, sign: bytes) -> bool:
    """Whether undecoded JSON begins with the byte `sign`, which tells its type."""
    return bytes(memoryview(raw)[:1]) == sign


def _texts(raw: msgspec.Raw) -> Iterator[str]:
    if len(raw) > _MAX_SHORT_TEXT_BYTES:
        return
    if raw_starts(raw, b'"'):
        yield decode(_string, raw)
    elif raw_starts(raw, b"["):
        yield from (decode(_string, item) for item in decode(_list, raw) if raw_starts(item, b'"'))
