"""Grouped queries, which the engine does not have: the best hits of the best groups, exactly.

The window of hits grows until enough groups are full or the hits are used up, so the answer does
not depend on how the hits are spread over the groups.
"""

from typing import Any

import msgspec
import qdrant_edge as edge

from local.qdrant import bodies
from local.qdrant.errors import ApiError
from local.qdrant.query import query_request, record, with_payload, with_vector
from local.qdrant.validation import VectorSchema

_GROWTH = 4


def query_groups(
    shard: edge.EdgeShard, body: bodies.QueryGroups, schema: VectorSchema
) -> list[dict[str, Any]]:
    """Groups by their best hit, each `{"id": value, "hits": [...]}`; points without the field are
    in none.
    """
    if "[" in body.group_by:
        raise ApiError.wrong_input("group_by takes a plain path, without brackets")
    groups = _best_groups(shard, body, schema)
    ids = {hit.id for hits in groups.values() for hit in hits}
    payload, vector = with_payload(body.with_payload, default=False), with_vector(body.with_vector)
    records = {found.id: record(found) for found in shard.retrieve(list(ids), payload, vector)}
    return [
        {
            "id": group,
            "hits": [
                {"version": hit.version, "score": hit.score, **records[hit.id]} for hit in hits
            ],
        }
        for group, hits in groups.items()
    ]


def _best_groups(
    shard: edge.EdgeShard, body: bodies.QueryGroups, schema: VectorSchema
) -> dict[str | int, list[edge.ScoredPoint]]:
    query = _ungrouped(body)
    window = body.limit * body.group_size * _GROWTH
    total = shard.info().points_count
    while True:
        query.limit = min(window, total)
        hits = shard.query(query_request(query, schema))
        groups = _group(hits, body)
        full = sum(len(group) == body.group_size for group in groups.values())
        if len(hits) < window or full == body.limit:
            return groups
        window *= _GROWTH


def _ungrouped(body: bodies.QueryGroups) -> bodies.Query:
    """The query whose hits are grouped: of the payload it returns only the field to group by."""
    fields = {name: getattr(body, name) for name in bodies.Prefetch.__struct_fields__}
    query = bodies.Query(**fields)
    query.with_payload = [body.group_by]
    if query.prefetch is not None:
        query.prefetch = _widened(query.prefetch, body.group_size)
    return query


def _widened(body: list[bodies.Prefetch] | bodies.Prefetch, factor: int) -> list[bodies.Prefetch]:
    """Prefetches with room for a group's further hits, as the server makes it."""
    return [
        msgspec.structs.replace(
            one, limit=one.limit * factor, prefetch=one.prefetch and _widened(one.prefetch, factor)
        )
        for one in (body if isinstance(body, list) else [body])
    ]


def _group(
    hits: list[edge.ScoredPoint], body: bodies.QueryGroups
) -> dict[str | int, list[edge.ScoredPoint]]:
    groups: dict[str | int, list[edge.ScoredPoint]] = {}
    for hit in hits:
        for value in _values(hit.payload, body.group_by):
            if value not in groups and len(groups) == body.limit:
                continue
            group = groups.setdefault(value, [])
            if len(group) < body.group_size:
                group.append(hit)
    return groups


def _values(payload: Any, path: str) -> list[str | int]:
    """Strings and integers at a dotted path; a list there puts the point into several groups."""
    for name in path.split("."):
        payload = payload.get(name) if isinstance(payload, dict) else None
    values = payload if isinstance(payload, list) else [payload]
    kept = [
        value for value in values if isinstance(value, str | int) and not isinstance(value, bool)
    ]
    return list(dict.fromkeys(kept))
