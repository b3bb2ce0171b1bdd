"""Reads: from request Structs to the engine's requests, and from its answers to JSON.

Grouping is in `groups`. Every function is pure; the caller runs the request on the shard.
"""

from typing import Any, Final

import qdrant_edge as edge

from local.qdrant import bodies
from local.qdrant.errors import ApiError
from local.qdrant.filters import to_filter
from local.qdrant.points import to_vector
from local.qdrant.validation import UNNAMED, VectorSchema, check_point_ids, check_vector, only_field

MAX_PREFETCH_DEPTH = 8
_DEFAULT_RRF_K: Final = 2  # the server's own; millstream always sends its k


def query_request(body: bodies.Query, schema: VectorSchema) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=body.limit,
        offset=body.offset,
        query=_scoring(body, schema),
        prefetches=prefetches(body, schema),
        with_vector=with_vector(body.with_vector),
        with_payload=with_payload(body.with_payload, default=False),
        filter=to_filter(body.filter),
        score_threshold=body.score_threshold,
        params=_params(body.params),
    )


def prefetches(
    body: bodies.Prefetch, schema: VectorSchema, depth: int = 1
) -> list[edge.Prefetch] | None:
    """The prefetches of a query, or of a prefetch."""
    if body.prefetch is None:
        return None
    if depth > MAX_PREFETCH_DEPTH:
        raise ApiError.invalid(f"prefetch: nested deeper than {MAX_PREFETCH_DEPTH} levels")
    bodies = body.prefetch if isinstance(body.prefetch, list) else [body.prefetch]
    return [
        edge.Prefetch(
            limit=one.limit,
            query=_scoring(one, schema),
            prefetches=prefetches(one, schema, depth + 1),
            params=_params(one.params),
            filter=to_filter(one.filter),
            score_threshold=one.score_threshold,
        )
        for one in bodies
    ]


def scroll_request(body: bodies.Scroll) -> edge.ScrollRequest:
    if body.offset is not None:
        check_point_ids([body.offset])
        if body.order_by is not None:
            raise ApiError.wrong_input("Cannot use an `offset` when using `order_by`.")
    return edge.ScrollRequest(
        offset=body.offset,
        limit=body.limit,
        filter=to_filter(body.filter),
        with_payload=with_payload(body.with_payload, default=True),
        with_vector=with_vector(body.with_vector),
        order_by=None if body.order_by is None else _order_by(body.order_by),
    )


def facet_request(body: bodies.Facet) -> edge.FacetRequest:
    return edge.FacetRequest(body.key, body.limit, True, to_filter(body.filter))


def with_payload(body: bodies.WithPayload | None, *, default: bool) -> Any:
    """Which payload fields to return, as the engine takes it."""
    if body is None:
        return default
    if isinstance(body, bodies.PayloadSelector):
        kind = only_field(body)
        keys = getattr(body, kind)
        return (
            edge.PayloadSelector.Include(keys)
            if kind == "include"
            else edge.PayloadSelector.Exclude(keys)
        )
    return body


def with_vector(body: bodies.WithVector | None) -> bool | list[str]:
    return False if body is None else body


def scored(point: edge.ScoredPoint) -> dict[str, Any]:
    """One hit as JSON; fields that were not asked for are left out."""
    return {"version": point.version, "score": point.score, **record(point)}


def record(point: edge.Record | edge.ScoredPoint) -> dict[str, Any]:
    """One point as JSON; fields that were not asked for are left out."""
    found: dict[str, Any] = {"id": point.id}
    if point.payload is not None:
        found["payload"] = point.payload
    if point.vector is not None:
        found["vector"] = _vectors(point.vector)
    if point.order_value is not None:
        found["order_value"] = point.order_value
    return found


def _scoring(body: bodies.Prefetch, schema: VectorSchema) -> Any:
    """The engine's query, or None, which lists points by id."""
    query, using = body.query, body.using
    if query is None:
        return None
    if isinstance(query, int | str):
        raise ApiError.wrong_input(
            "querying by a point's id is not supported here: send its vector"
        )
    if isinstance(query, list):
        return _nearest(query, using, schema)
    if query.indices is not None and query.values is not None:
        return _nearest(
            bodies.SparseVector(indices=query.indices, values=query.values), using, schema
        )
    kind = only_field(query)
    if kind == "nearest":
        return _nearest(query.nearest, using, schema)
    if kind == "order_by" and query.order_by is not None:
        return _order_by(query.order_by)
    if using is not None:
        raise ApiError.wrong_input("Fusion queries cannot be combined with the 'using' field.")
    return _fusion(query, kind)


def _nearest(vector: Any, using: str | None, schema: VectorSchema) -> edge.Query:
    if isinstance(vector, int | str):
        raise ApiError.wrong_input(
            "querying by a point's id is not supported here: send its vector"
        )
    check_vector(using or UNNAMED, vector, schema)
    return edge.Query.Nearest(to_vector(vector), using)


def _fusion(query: bodies.QueryObject, kind: str) -> Any:
    if query.fusion == "dbsf":
        return edge.Fusion.Dbsf()
    if kind == "fusion":
        return edge.Fusion.Rrf(_DEFAULT_RRF_K)
    if kind != "rrf" or query.rrf is None:
        raise ApiError.malformed("expected some form of vector or a type of query")
    return edge.Fusion.Rrf(query.rrf.k or _DEFAULT_RRF_K, query.rrf.weights)


def _order_by(body: str | bodies.OrderBy) -> edge.OrderBy:
    if isinstance(body, str):
        return edge.OrderBy(body)
    direction = edge.Direction.Desc if body.direction == "desc" else edge.Direction.Asc
    return edge.OrderBy(body.key, direction, body.start_from)


def _params(body: bodies.SearchParams | None) -> edge.SearchParams | None:
    if body is None:
        return None
    return edge.SearchParams(
        hnsw_ef=body.hnsw_ef, exact=bool(body.exact), indexed_only=bool(body.indexed_only)
    )


def _vectors(vectors: Any) -> Any:
    if isinstance(vectors, edge.SparseVector):
        return {"indices": vectors.indices, "values": vectors.values}
    if isinstance(vectors, dict):
        return {name: _vectors(vector) for name, vector in vectors.items()}
    return vectors
