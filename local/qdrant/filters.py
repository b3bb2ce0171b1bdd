"""Filters: from request Structs to the engine's conditions. What the engine cannot do is refused,
not ignored.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
import qdrant_edge as edge

from local.qdrant import bodies
from local.qdrant.errors import ApiError
from local.qdrant.validation import check_point_ids, only_field

# A filter is part of a delete in the engine's log; nested deeper than about 48 it could not be read
# again.
MAX_DEPTH = 16

Conditions: TypeAlias = "list[bodies.Condition] | bodies.Condition | None"
EdgeCondition: TypeAlias = (
    edge.FieldCondition
    | edge.IsEmptyCondition
    | edge.IsNullCondition
    | edge.HasIdCondition
    | edge.HasVectorCondition
    | edge.NestedCondition
    | edge.Filter
)
EdgeMatch: TypeAlias = (
    edge.MatchValue
    | edge.MatchAny
    | edge.MatchExcept
    | edge.MatchPrefix
    | edge.MatchText
    | edge.MatchTextAny
    | edge.MatchPhrase
    | edge.MatchSubstring
)

_TEXT_MATCHES: Final[Mapping[str, type]] = {
    "prefix": edge.MatchPrefix,
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
    "substring": edge.MatchSubstring,
}


def to_filter(body: bodies.Filter | None) -> edge.Filter | None:
    """The engine's filter; raises ApiError for one that is too deep or says nothing clear."""
    return None if body is None else _filter(body, 1)


def _filter(body: bodies.Filter, depth: int) -> edge.Filter:
    if depth > MAX_DEPTH:
        raise ApiError.invalid(f"filter: nested deeper than {MAX_DEPTH} levels")
    return edge.Filter(
        must=_conditions(body.must, depth),
        should=_conditions(body.should, depth),
        must_not=_conditions(body.must_not, depth),
        min_should=None if body.min_should is None else _min_should(body.min_should, depth),
    )


def _min_should(body: bodies.MinShould, depth: int) -> edge.MinShould:
    return edge.MinShould([_condition(one, depth) for one in body.conditions], body.min_count)


def _conditions(body: Conditions, depth: int) -> list[EdgeCondition] | None:
    if body is None:
        return None
    return [_condition(one, depth) for one in (body if isinstance(body, list) else [body])]


def _condition(body: bodies.Condition, depth: int) -> EdgeCondition:
    if body.key is not None:
        return _field_condition(body, body.key)
    given = [name for name in body.__struct_fields__ if getattr(body, name) is not None]
    if given and set(given) <= set(bodies.Filter.__struct_fields__):
        return _filter(body, depth + 1)
    if len(given) != 1:
        raise ApiError.malformed(
            f"a condition has exactly one kind, not: {', '.join(given) or 'nothing'}"
        )
    return _plain_condition(body, depth)


def _plain_condition(body: bodies.Condition, depth: int) -> EdgeCondition:
    if body.has_id is not None:
        check_point_ids(body.has_id)
        return edge.HasIdCondition(set(body.has_id))
    if body.has_vector is not None:
        return edge.HasVectorCondition(body.has_vector)
    if body.nested is not None:
        return edge.NestedCondition(body.nested.key, _filter(body.nested.filter, depth + 1))
    if isinstance(body.is_empty, bodies.FieldName):
        return edge.IsEmptyCondition(body.is_empty.key)
    if isinstance(body.is_null, bodies.FieldName):
        return edge.IsNullCondition(body.is_null.key)
    raise ApiError.malformed("a condition on a field needs its key")


def _field_condition(body: bodies.Condition, key: str) -> edge.FieldCondition:
    given = {name for name in body.__struct_fields__ if getattr(body, name) is not None} - {"key"}
    if len(given) != 1 or not given <= {"match", "range", "values_count", "is_empty", "is_null"}:
        raise ApiError.malformed(f"the condition on `{key}` needs exactly one test")
    return edge.FieldCondition(
        key,
        match=None if body.match is None else _match(body.match),
        range=None if body.range is None else _range(body.range),
        values_count=None if body.values_count is None else _values_count(body.values_count),
        is_empty=_flag(body.is_empty),
        is_null=_flag(body.is_null),
    )


def _match(body: bodies.Match) -> EdgeMatch:
    kind = only_field(body)
    value = getattr(body, kind)
    if kind == "value":
        # PyO3 takes a Python bool for an integer and would compare with 1; numpy's it knows as a
        # boolean.
        known = np.bool_(value) if isinstance(value, bool) else value
        return edge.MatchValue(known)  # type: ignore[arg-type]
    if kind in _TEXT_MATCHES:
        match: EdgeMatch = _TEXT_MATCHES[kind](value)
        return match
    if len({type(item) for item in value}) > 1:
        raise ApiError.malformed(f"match.{kind.rstrip('_')} takes strings or integers, not both")
    return edge.MatchAny(value) if kind == "any" else edge.MatchExcept(value)


def _range(body: bodies.Range) -> edge.RangeFloat | edge.RangeDateTime:
    bounds = {
        name: bound for name in body.__struct_fields__ if (bound := getattr(body, name)) is not None
    }
    if not any(isinstance(bound, str) for bound in bounds.values()):
        return edge.RangeFloat(**bounds)
    if not all(isinstance(bound, str) for bound in bounds.values()):
        raise ApiError.malformed("a range has numbers or dates as bounds, not both")
    return edge.RangeDateTime(**bounds)


def _values_count(body: bodies.ValuesCount) -> edge.ValuesCount:
    return edge.ValuesCount(lt=body.lt, gt=body.gt, lte=body.lte, gte=body.gte)


def _flag(value: bool | bodies.FieldName | None) -> bool | None:
    if isinstance(value, bodies.FieldName):
        raise ApiError.malformed("a condition has one key")
    return value
