"""The filters of a search, for both keyword engines: as Qdrant's conditions, and judged here."""

import datetime as dt

import msgspec
from qdrant_client.models import Condition, DatetimeRange, FieldCondition, Filter, MatchPrefix, MatchValue

from shared.service.search_contract import SearchFilters

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


def qdrant_filter(filters: SearchFilters) -> Filter | None:
    """The same conditions for Qdrant, None without any."""
    must: list[Condition] = [
        FieldCondition(key=name, match=MatchValue(value=value)) for name, value in _equalities(filters).items()
    ]
    if filters.url_prefix is not None:
        must.append(FieldCondition(key="url", match=MatchPrefix(prefix=filters.url_prefix)))
    if filters.indexed_after is not None:
        must.append(FieldCondition(key="indexed_at", range=DatetimeRange(gt=_in_utc(filters.indexed_after))))
    return Filter(must=must) if must else None


def matches(filters: SearchFilters, point: Filtered) -> bool:
    """Whether all that is asked for holds for a point."""
    return (
        all(getattr(point, name) == value for name, value in _equalities(filters).items())
        and (filters.url_prefix is None or point.url.startswith(filters.url_prefix))
        and (filters.indexed_after is None or point.indexed_at > _in_utc(filters.indexed_after))
    )


def _equalities(filters: SearchFilters) -> dict[str, str | bool]:
    wanted = {name: value for name in _EQUAL if (value := getattr(filters, name)) is not None}
    if filters.domain is not None:
        wanted["domain"] = filters.domain.lower()
    return wanted


def _in_utc(time: dt.datetime) -> dt.datetime:
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
