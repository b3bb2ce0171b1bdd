"""Reading a search request: JSON to the Structs of `shared/service/search_contract.py`."""

import re
import unicodedata
from typing import Any

import msgspec

from indexer.search.ranking import WINDOW
from shared.service.parameters import explain
from shared.service.search_contract import SearchRequest

_CAMEL_HUMP = re.compile(r"(?<=[a-z])([A-Z])")


class InvalidSearchError(ValueError):
    """The request does not fit the contract; the text says where and what was expected."""


def decode_request(body: bytes) -> SearchRequest:
    """Read a request; names may be snake_case or camelCase. Raises InvalidSearchError."""
    try:
        request = msgspec.convert(_with_snake_case_names(msgspec.json.decode(body)), SearchRequest)
    except msgspec.ValidationError as error:
        raise InvalidSearchError(explain(error, SearchRequest)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSearchError(f"the body is not valid JSON: {error}") from error
    if not request.query.strip():
        raise InvalidSearchError("invalid value for `query`: expected text that is not blank")
    if request.offset + request.limit > WINDOW:
        raise InvalidSearchError(
            f"`offset` + `limit` is {request.offset + request.limit}, at most {WINDOW} are "
            "allowed: "
            "narrow the search with filters instead"
        )
    # Stored texts are in normal form C.
    return msgspec.structs.replace(request, query=unicodedata.normalize("NFC", request.query))


def _with_snake_case_names(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        _CAMEL_HUMP.sub(r"_\1", name).lower(): _with_snake_case_names(inner)
        for name, inner in value.items()
    }  # fmt: skip
