"""JSON bytes to Structs, with the two errors that a whole request can end in. Knows nothing of documents."""

from typing import TypeVar

import msgspec

from ingest.documents.json_scan import count_elements, repair
from shared.service.errors import MillstreamError

T = TypeVar("T")


class MalformedBodyError(MillstreamError):
    """This is not JSON, not even after a repair (HTTP 400)."""


class UnprocessableBodyError(MillstreamError):
    """This is JSON, but not of a shape that can be used (HTTP 422)."""


_elements = msgspec.json.Decoder(list[msgspec.Raw])


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    """Decode `raw`, if need be after replacing lone surrogate escapes and cutting what nests over 64 levels.

    msgspec fails on both for the whole body, although JavaScript and Python write them. Nothing but
    MalformedBodyError and UnprocessableBodyError leaves here, on any bytes.
    """
    try:
        return _decode(decoder, raw)
    except (MalformedBodyError, RecursionError):
        pass
    try:
        return _decode(decoder, repair(raw))
    except RecursionError as error:  # the caller stands so deep that not even 64 levels are left
        raise MalformedBodyError("the JSON nests too deep") from error


def split_elements(array: msgspec.Raw, limit: int) -> list[msgspec.Raw]:
    """The elements of a JSON array, undecoded. Raises UnprocessableBodyError for more than `limit`."""
    # 64 MB of `1,1,1` would be 2 GB of Raws: count first, when it could be too many.
    is_suspect = bytes(array).count(b",") >= limit
    if is_suspect and (found := count_elements(array)) > limit:
        raise UnprocessableBodyError(f"the body has {found:,} documents, at most {limit:,} are taken at once")
    return decode(_elements, array)


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise UnprocessableBodyError(f"the JSON has the wrong shape: {error}") from error
    except msgspec.DecodeError as error:
        raise MalformedBodyError(f"this is not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"this is not valid UTF-8: {error.reason} (byte {error.start})") from error
