"""The choices of a sender for its documents: lane, collection, and callback URL."""

import re

import msgspec

from ingest.documents.canonical import canonical_url
from ingest.documents.draft import first_text, is_given, raw_starts, rejecting_malformed
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError
from shared.service.parameters import COLLECTION_PATTERN, COLLECTION_WORDS

_COLLECTION = re.compile(COLLECTION_PATTERN)


def parse_lane(text: str | None) -> Lane | None:
    """The lane of this name, in any case; None for a blank one.

    Raises RejectedError `invalid_lane`.
    """
    name = (text or "").strip().lower()
    if not name:
        return None
    try:
        return Lane(name)
    except ValueError:
        raise RejectedError(
            "invalid_lane",
            f"invalid value for `lane`: expected one of {', '.join(Lane)}, not {name[:40]!a}",
        ) from None


def parse_collection(text: str | None) -> str | None:
    """The collection; None for a blank one. Raises RejectedError `invalid_collection`."""
    name = (text or "").strip()
    if not name:
        return None
    if not _COLLECTION.fullmatch(name):
        raise RejectedError(
            "invalid_collection",
            f"invalid value for `collection`: expected {COLLECTION_WORDS}, not {name[:40]!a}",
        )
    return name


def parse_callback(text: str | None) -> str | None:
    """The URL to call; None for a blank one. Raises RejectedError `invalid_callback_url`.

    Its address is checked elsewhere.
    """
    url = (text or "").strip()
    if not url:
        return None
    try:
        canonical = canonical_url(url)
    except RejectedError as error:
        raise RejectedError(
            "invalid_callback_url", f"invalid value for `callback_url`: {error.reason}"
        ) from error
    if not canonical.startswith("http"):
        raise RejectedError(
            "invalid_callback_url",
            "invalid value for `callback_url`: expected an http or https URL",
        )
    return url


def read_lane(raw: msgspec.Raw) -> Lane | None:
    """As `parse_lane`, for an undecoded JSON value."""
    return parse_lane(_read_name("lane", raw))


def read_collection(raw: msgspec.Raw) -> str | None:
    """As `parse_collection`, for an undecoded JSON value."""
    return parse_collection(_read_name("collection", raw))


def read_callback(raw: msgspec.Raw) -> str | None:
    """As `parse_callback`, for an undecoded JSON value."""
    return parse_callback(_read_name("callback_url", raw))


def _read_name(field: str, raw: msgspec.Raw) -> str | None:
    if not is_given(raw):
        return None
    if not raw_starts(raw, b'"'):
        raise RejectedError(f"invalid_{field}", f"invalid value for `{field}`: expected text")
    with rejecting_malformed():
        return first_text(raw)
