"""The filters of a search, for both keyword engines: as Qdrant's conditions, and judged here."""

import datetime as dt
import re
from collections.abc import Iterator

import msgspec
from qdrant_client.models import (
    Condition,
    DatetimeRange,
    FieldCondition,
    Filter,
    MatchAny,
    MatchPrefix,
    MatchText,
    MatchValue,
)

from shared.service.search_contract import SearchFilters

# What a URL begins with whose host is followed by a port, path or query.
_HOST = re.compile(r"(?i:https?)://([A-Za-z0-9_.-]*[A-Za-z0-9_-])[:/?]")
_EQUAL = ("domain", "language", "country", "is_mobile", "crawl_id")


class Filtered(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a point's payload that filters look at."""

    url: str
    indexed_at: dt.datetime
    domain: str = ""
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    crawl_id: str | None = None


def qdrant_filter(filters: SearchFilters, *, is_prefix_scanned: bool = False) -> Filter | None:
    """The same conditions for Qdrant, None without any.

    With `is_prefix_scanned` Qdrant compares the stored URLs one by one (6 us for each), and selects
    too much: those that contain the prefix anywhere. Every release can do this.
    """
    must: list[Condition] = [
        FieldCondition(key=name, match=MatchValue(value=value))
        for name, value in _equalities(filters).items()
    ]
    if filters.url_prefix is not None:
        must += (
            _scan(filters.url_prefix) if is_prefix_scanned else [_begins_with(filters.url_prefix)]
        )
    if filters.indexed_after is not None:
        must.append(
            FieldCondition(key="indexed_at", range=DatetimeRange(gt=_in_utc(filters.indexed_after)))
        )
    return Filter(must=must) if must else None


def matches(filters: SearchFilters, point: Filtered) -> bool:
    """Whether all that is asked for holds for a point."""
    return (
        all(getattr(point, name) == value for name, value in _equalities(filters).items())
        and (filters.url_prefix is None or point.url.startswith(filters.url_prefix))
        and (filters.indexed_after is None or point.indexed_at > _in_utc(filters.indexed_after))
    )


def _begins_with(prefix: str) -> FieldCondition:
    return FieldCondition(key="url", match=MatchPrefix(prefix=prefix))


def _scan(prefix: str) -> Iterator[FieldCondition]:
    # On a field without a full-text index this is a comparison of strings, and no words are cut out
    # of it.
    yield FieldCondition(key="url", match=MatchText(text=prefix))
    if host := _HOST.match(prefix):
        # An index finds the pages of the host. Messages of an early release have no domain.
        yield FieldCondition(key="domain", match=MatchAny(any=[host[1].lower(), ""]))


def _equalities(filters: SearchFilters) -> dict[str, str | bool]:
    wanted = {name: value for name in _EQUAL if (value := getattr(filters, name)) is not None}
    if filters.domain is not None:
        wanted["domain"] = filters.domain.lower()
    return wanted


def _in_utc(time: dt.datetime) -> dt.datetime:
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
