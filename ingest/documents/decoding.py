"""JSON bytes of senders to Structs, with the two errors of a whole request.

No knowledge of documents.
"""

from typing import TypeVar

import msgspec

from ingest.documents.json_scan import count_elements, repair
from shared.service.errors import MillstreamError

T = TypeVar("T")


class MalformedBodyError(MillstreamError):
    """The body is not JSON, even after a repair (HTTP 400)."""


class UnprocessableBodyError(MillstreamError):
    """The body is JSON of the wrong shape (HTTP 422)."""


_elements = msgspec.json.Decoder(list[msgspec.Raw])


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    """Decode `raw`.

    If that fails, replace lone surrogate escapes and containers nested over 64 levels, and retry.

    msgspec refuses the whole body for either, although JavaScript and Python write them. Raises
    only MalformedBodyError and UnprocessableBodyError, for any bytes.
    """
    try:
        return _decode(decoder, raw)
    except (MalformedBodyError, RecursionError):
        pass
    try:
        return _decode(decoder, repair(raw))
    except RecursionError as error:  # the stack of the caller leaves no room for 64 levels
        raise MalformedBodyError("the body is not valid JSON: it is nested too deeply") from error


def split_elements(array: msgspec.Raw, limit: int) -> list[msgspec.Raw]:
    """The elements of a JSON array, undecoded. Raises UnprocessableBodyError above `limit`."""
    # 64 MB of `1,1,1` would be 3 GB of Raws: count first if there may be too many.
    may_be_too_many = bytes(array).count(b",") >= limit
    if may_be_too_many and (found := count_elements(array)) > limit:
        raise UnprocessableBodyError(
            f"the body has {found:,} documents, at most {limit:,} are allowed: send it in parts"
        )
    return decode(_elements, array)


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise UnprocessableBodyError(f"invalid body: {error}") from error
    except msgspec.DecodeError as error:
        raise MalformedBodyError(f"the body is not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise MalformedBodyError(
            f"the body is not valid UTF-8: {error.reason} (byte {error.start})"
        ) from error
