"""The fields of a document, undecoded, in the form of the API or of Firecrawl, in camelCase or
snake_case.

Fields such as html, links and screenshots are skipped as bytes. `document` validates the fields
found here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError, decode
from shared.service.errors import RejectedError

_MAX_SHORT_TEXT_BYTES = 64 * 1024  # undecoded, of a title, an id or an error
_ABSENT = msgspec.Raw(b"")


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a document itself; an empty Raw is an absent field."""

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
    content: msgspec.Raw = (
        _ABSENT  # Firecrawl v0 wraps: {content: {markdown, metadata}, source: url}
    )
    source: msgspec.Raw = _ABSENT


class KnownMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The metadata that crawlers set; the Python client of Firecrawl uses the snake_case names."""

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
    """A document that is not validated yet."""

    fields: Fields
    known: KnownMetadata
    url: str | None  # of the document, else of its metadata; None if neither is text


_fields = msgspec.json.Decoder(Fields)
_known_metadata = msgspec.json.Decoder(KnownMetadata)
_string = msgspec.json.Decoder(str)
_list = msgspec.json.Decoder(list[msgspec.Raw])


def parse_draft(raw: bytes | msgspec.Raw) -> Draft:
    """Find the fields of a document.

    Raises the errors of `decode`, and RejectedError `metadata_not_object`.
    """
    fields = decode(_fields, raw)
    if is_given(fields.metadata) and not is_object(fields.metadata):
        raise RejectedError(
            "metadata_not_object", "invalid value for `metadata`: expected a JSON object"
        )
    known = (
        decode(_known_metadata, fields.metadata) if is_object(fields.metadata) else KnownMetadata()
    )
    url = first_text(fields.url, known.url, known.source_url, known.source_url_snake)
    return Draft(fields=fields, known=known, url=url)


def read_draft(raw: bytes | msgspec.Raw) -> Draft:
    """As `parse_draft`, of a document among others: raises only RejectedError."""
    with rejecting_malformed():
        return parse_draft(raw)


def read_page(raw: bytes | msgspec.Raw) -> Draft:
    """As `read_draft`, for pages of Firecrawl, also in the form of v0:

    `{content: document, source: url}`.
    """
    outer = read_draft(raw)
    if outer.fields.markdown or not is_object(outer.fields.content):
        return outer
    inner = read_draft(outer.fields.content)
    with rejecting_malformed():
        return msgspec.structs.replace(inner, url=inner.url or first_text(outer.fields.source))


@contextmanager
def rejecting_malformed() -> Iterator[None]:
    """Turn decoding errors into RejectedError `malformed`: the document is at fault."""
    try:
        yield
    except MalformedBodyError as error:
        raise RejectedError("malformed", str(error)) from error
    except UnprocessableBodyError as error:
        raise RejectedError("malformed", "the document is not a JSON object") from error


def first_text(*candidates: msgspec.Raw) -> str | None:
    """The first of these values that is text and not blank, trimmed and without NUL.

    Of a list, the first such text: Firecrawl sends a list if a page repeats a meta tag. Raises
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
    """Whether undecoded JSON starts with the byte `sign`, which identifies its type."""
    return bytes(memoryview(raw)[:1]) == sign


def _texts(raw: msgspec.Raw) -> Iterator[str]:
    if len(raw) > _MAX_SHORT_TEXT_BYTES:
        return
    if raw_starts(raw, b'"'):
        yield decode(_string, raw)
    elif raw_starts(raw, b"["):
        yield from (decode(_string, item) for item in decode(_list, raw) if raw_starts(item, b'"'))
