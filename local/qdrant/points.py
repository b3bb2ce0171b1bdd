"""Writes: from request Structs to the engine's operations, checked before anything is written."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import qdrant_edge as edge

from local.qdrant import bodies
from local.qdrant.errors import ApiError
from local.qdrant.filters import to_filter
from local.qdrant.validation import (
    VectorSchema,
    check_payload,
    check_point_ids,
    check_points,
    only_field,
)

EdgeId: TypeAlias = int | UUID | str

_MODES: Final = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


class Write(NamedTuple):
    """One operation, and the points that must exist for it: the engine would stop halfway at a
    missing one.
    """

    operation: edge.UpdateOperation
    existing: list[EdgeId] = []  # noqa: RUF012 (never changed)


def upsert(body: bodies.UpsertPoints, schema: VectorSchema) -> list[Write]:
    check_points(body.points, schema)
    points = [
        edge.Point(point.id, to_vectors(point.vector), point.payload) for point in body.points
    ]
    mode = _MODES[body.update_mode] if body.update_mode else None
    return [Write(edge.UpdateOperation.upsert_points(points, to_filter(body.update_filter), mode))]


def to_vectors(vectors: bodies.Vectors) -> Any:
    """Vectors of a point as the engine takes them."""
    if isinstance(vectors, list):
        return vectors
    return {name: to_vector(vector) for name, vector in vectors.items()}


def to_vector(vector: bodies.NamedVector) -> list[float] | edge.SparseVector:
    return vector if isinstance(vector, list) else edge.SparseVector(vector.indices, vector.values)


def delete(body: bodies.Selector, _schema: VectorSchema) -> list[Write]:
    ids, condition = _selected(body)
    if condition is not None:
        return [Write(edge.UpdateOperation.delete_points_by_filter(condition))]
    return [Write(edge.UpdateOperation.delete_points(ids))]


def clear_payload(body: bodies.Selector, _schema: VectorSchema) -> list[Write]:
    ids, condition = _selected(body)
    if condition is not None:
        return [Write(edge.UpdateOperation.clear_payload_by_filter(condition))]
    return [Write(edge.UpdateOperation.clear_payload(ids), ids)]


def delete_payload(body: bodies.DeletePayload, _schema: VectorSchema) -> list[Write]:
    ids, condition = _selected(body)
    if condition is not None:
        return [Write(edge.UpdateOperation.delete_payload_by_filter(condition, body.keys))]
    return [Write(edge.UpdateOperation.delete_payload(ids, body.keys), ids)]


def set_payload(body: bodies.SetPayload, _schema: VectorSchema) -> list[Write]:
    by_ids, by_filter = edge.UpdateOperation.set_payload, edge.UpdateOperation.set_payload_by_filter
    return [_with_payload(body, by_ids, by_filter)]


def overwrite_payload(body: bodies.SetPayload, _schema: VectorSchema) -> list[Write]:
    by_ids, by_filter = (
        edge.UpdateOperation.overwrite_payload,
        edge.UpdateOperation.overwrite_payload_by_filter,
    )
    return [_with_payload(body, by_ids, by_filter)]


def batch(body: bodies.BatchUpdate, schema: VectorSchema) -> list[Write]:
    """All operations in order; one that is not valid refuses the whole batch."""
    writes: list[Write] = []
    for operation in body.operations:
        kind = only_field(operation)
        writes += _BATCH[kind](getattr(operation, kind), schema)
    return writes


_BATCH: Final[Mapping[str, Callable[[Any, VectorSchema], list[Write]]]] = {
    "upsert": upsert,
    "delete": delete,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
}


def _with_payload(
    body: bodies.SetPayload, by_ids: Callable[..., Any], by_filter: Callable[..., Any]
) -> Write:
    check_payload(body.payload)
    ids, condition = _selected(body)
    if condition is not None:
        return Write(by_filter(condition, body.payload, body.key))
    return Write(by_ids(ids, body.payload, body.key), ids)


def _selected(body: bodies.Selector) -> tuple[list[EdgeId], edge.Filter | None]:
    if (body.points is None) == (body.filter is None):
        raise ApiError.malformed("expected either `points` or `filter`")
    if body.points is not None:
        check_point_ids(body.points)
        return list(body.points), None
    return [], to_filter(body.filter)
