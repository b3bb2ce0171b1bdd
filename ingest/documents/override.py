"""What a sender may choose for its documents: their lane, their collection, and who hears when the job has ended."""

import re

import msgspec

from ingest.documents.canonical import canonical_url
from ingest.documents.draft import first_text, is_given, raw_starts, rejecting_malformed
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError

# Qdrant refuses path characters in names, and a name travels in URLs and stream headers.
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def parse_lane(text: str | None) -> Lane | None:
    """The lane called `text`, in any case; None if none was asked for. Raises RejectedError `invalid_lane`."""
    name = (text or "").strip().lower()
    if not name:
        return None
    try:
        return Lane(name)
    except ValueError:
        raise RejectedError("invalid_lane", f"lane must be one of {', '.join(Lane)}, not {name[:40]!a}") from None


def parse_collection(text: str | None) -> str | None:
    """The collection's name; None if none was asked for. Raises RejectedError `invalid_collection`."""
    name = (text or "").strip()
    if not name:
        return None
    if not _COLLECTION.fullmatch(name):
        raise RejectedError(
            "invalid_collection",
            f"collection must be 1 to 128 letters, digits, dots, dashes and underscores, not {name[:40]!a}",
        )
    return name


def parse_callback(text: str | None) -> str | None:
    """The URL to call; None if none was asked for. Raises RejectedError `invalid_callback_url`.

    Whether its address may be called is not judged here.
    """
    url = (text or "").strip()
    if not url:
        return None
    try:
        canonical = canonical_url(url)
    except RejectedError as error:
        raise RejectedError("invalid_callback_url", f"callback_url: {error.reason}") from error
    if not canonical.startswith("http"):
        raise RejectedError("invalid_callback_url", "callback_url: only http and https can be called")
    return url


def read_lane(raw: msgspec.Raw) -> Lane | None:
    """As `parse_lane`, of an undecoded JSON value."""
    return parse_lane(_read_name("lane", raw))


def read_collection(raw: msgspec.Raw) -> str | None:
    """As `parse_collection`, of an undecoded JSON value."""
    return parse_collection(_read_name("collection", raw))


def read_callback(raw: msgspec.Raw) -> str | None:
    """As `parse_callback`, of an undecoded JSON value."""
    return parse_callback(_read_name("callback_url", raw))


def _read_name(field: str, raw: msgspec.Raw) -> str | None:
    if not is_given(raw):
        return None
    if not raw_starts(raw, b'"'):
        raise RejectedError(f"invalid_{field}", f"{field} must be text")
    with rejecting_malformed():
        return first_text(raw)
