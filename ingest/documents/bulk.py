"""The bodies of POST /api/index and /api/index/batch: one document, a list of them, or NDJSON.

Pure.
"""

import re
from collections.abc import Iterator
from functools import partial

import msgspec

from ingest.documents.decoding import UnprocessableBodyError, decode, split_elements
from ingest.documents.document import (
    DEFAULT_LIMITS,
    Document,
    Limits,
    RejectedDocument,
    build_api_document,
    parse_each,
)
from ingest.documents.draft import parse_draft, raw_starts, read_draft
from ingest.documents.override import (
    read_callback,
    read_collection,
    read_lane,
)
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError

_ABSENT = msgspec.Raw(b"")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # written by editors and shells on Windows
_LINE = re.compile(rb"\S[^\n]*")


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, at least one, in the order sent, and the placement of those that choose none."""

    documents: list[Document | RejectedDocument]
    lane: Lane | None = None
    collection: str | None = None
    callback_url: str | None = None  # http or https; the caller checks its address


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    documents: msgspec.Raw = _ABSENT
    lane: msgspec.Raw = _ABSENT
    collection: msgspec.Raw = _ABSENT
    callback_url: msgspec.Raw = _ABSENT
    callback_url_camel: msgspec.Raw = msgspec.field(name="callbackUrl", default=_ABSENT)


_envelope = msgspec.json.Decoder(_Envelope)


def parse_single(body: bytes, limits: Limits = DEFAULT_LIMITS) -> Document:
    """The one document of POST /api/index.

    Raises MalformedBodyError, UnprocessableBodyError if it is not an object, RejectedError for an
    invalid document.
    """
    return build_api_document(parse_draft(body.removeprefix(_BYTE_ORDER_MARK)), limits)


def parse_batch(body: bytes, limits: Limits = DEFAULT_LIMITS) -> BulkRequest:
    """The body `{documents: [...], lane?, collection?, callback_url?}` of POST /api/index/batch.

    Raises MalformedBodyError and UnprocessableBodyError; an invalid document is an element of the
    result.
    """
    envelope = decode(_envelope, body.removeprefix(_BYTE_ORDER_MARK))
    if not raw_starts(envelope.documents, b"["):
        raise UnprocessableBodyError("invalid value for `documents`: expected a list of documents")
    try:
        lane, collection = read_lane(envelope.lane), read_collection(envelope.collection)
        callback_url = read_callback(envelope.callback_url or envelope.callback_url_camel)
    except RejectedError as error:
        raise UnprocessableBodyError(error.reason) from error
    documents = _parse_documents(
        iter(split_elements(envelope.documents, limits.max_documents)), limits
    )
    return BulkRequest(
        documents=documents, lane=lane, collection=collection, callback_url=callback_url
    )


def parse_ndjson(body: bytes, limits: Limits = DEFAULT_LIMITS) -> BulkRequest:
    """A document per line; blank lines are skipped.

    Raises UnprocessableBodyError; an invalid line is an element of the result.
    """
    lines = _lines(body.removeprefix(_BYTE_ORDER_MARK), limits.max_documents)
    return BulkRequest(documents=_parse_documents(lines, limits))


def _parse_documents(
    elements: Iterator[bytes] | Iterator[msgspec.Raw], limits: Limits
) -> list[Document | RejectedDocument]:
    documents = parse_each(elements, read_draft, partial(build_api_document, limits=limits))
    if not documents:
        raise UnprocessableBodyError("the request has no documents: expected at least one")
    return documents


def _lines(body: bytes, limit: int) -> Iterator[bytes]:
    for number, match in enumerate(_LINE.finditer(body)):
        if number == limit:
            raise UnprocessableBodyError(
                f"the body has more than {limit:,} documents: send it in parts"
            )
        yield match[0]
