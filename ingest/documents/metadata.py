"""The metadata of a document that is stored:

JSON that Postgres, msgpack and Qdrant accept, small enough for every chunk.

A top-level entry is either stored whole or omitted; the order stays the same.
"""

import math
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from ingest.documents.decoding import UnprocessableBodyError, decode

MAX_METADATA_BYTES = 16 * 1024  # as JSON; a document of 1,000 chunks stores it 1,000 times
MAX_METADATA_DEPTH = 8  # containers around a value, including the metadata object itself

# Undecoded JSON can be longer than its value: `\u0041` has six bytes for one.
_MAX_ESCAPED_BYTES = 6 * MAX_METADATA_BYTES
_MAX_UNDECODED_BYTES = 1024 * 1024  # about 200,000 entries

_entries = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()


class _TooDeepError(Exception):
    """A value is nested too deeply."""


def keep_metadata(
    raw: msgspec.Raw, leave_out: AbstractSet[str] = frozenset()
) -> tuple[dict[str, Any], int]:
    """Decode the metadata object `raw`; returns the stored entries and the number of omitted ones.

    An entry is omitted if it is nested deeper than 8 levels, is a number beyond a double, or would
    make the whole exceed 16 KiB of JSON. Metadata of more than 1 MiB is omitted as one entry.
    `leave_out` names entries that are dropped without being counted. NUL is removed; whole numbers
    beyond 64 bits become text. Raises MalformedBodyError for invalid UTF-8 and
    UnprocessableBodyError for anything but an object.
    """
    if len(raw) > _MAX_UNDECODED_BYTES:
        return {}, 1
    kept: dict[str, Any] = {}
    omitted = 0
    room = MAX_METADATA_BYTES - len(b"{}")
    for key, undecoded in decode(_entries, raw).items():
        name = key.replace("\0", "")
        if name in leave_out:
            continue
        entry = _entry(name, undecoded)
        if entry is None or name in kept or entry[1] > room:
            omitted += 1
            continue
        kept[name] = entry[0]
        room -= entry[1]
    return kept, omitted


def _entry(name: str, undecoded: msgspec.Raw) -> tuple[Any, int] | None:
    """The value, and the size of the entry in bytes; None if it cannot be stored."""
    if len(undecoded) > _MAX_ESCAPED_BYTES:
        return None
    try:
        value = _storable(decode(_value, undecoded), 1)
    except (_TooDeepError, UnprocessableBodyError):
        return None
    return value, len(msgspec.json.encode({name: value})) - len(b"{}") + len(b",")


def _storable(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict | list):
        if depth >= MAX_METADATA_DEPTH:
            raise _TooDeepError
        if isinstance(value, list):
            return [_storable(item, depth + 1) for item in value]
        return {key.replace("\0", ""): _storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)  # msgpack has no such numbers, and those of Qdrant have 64 bits with sign
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
