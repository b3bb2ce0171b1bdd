"""Checks on what may reach the engine, pure and without I/O.

The engine appends an operation to its log before it looks at it, so a point that it cannot digest
would come back at every start: a sparse vector with too few values panics for ever, a payload
nested deeper than about 120 makes the log unreadable. Everything here raises ApiError, and nothing
has been written then.
"""

import math
import uuid
from collections.abc import Iterable, Mapping

from msgspec import Struct

from local.qdrant.bodies import Body, NamedVector, Payload, Point, PointId, SparseVector, Vectors
from local.qdrant.errors import ApiError

MAX_PAYLOAD_DEPTH = 64
MAX_NAME_BYTES = 255
UNNAMED = ""  # the name of a collection's only vector when it was given none
_MAX_FLOAT32 = 3.4028234663852886e38
_MAX_INDEX = 2**32 - 1
_FORBIDDEN_IN_NAMES = frozenset('<>:"/\\|?*\0\x1f')


class VectorSchema(Struct, frozen=True):
    """A collection's vectors: the size of each dense one, and the names of the sparse ones."""

    dense: Mapping[str, int]
    sparse: frozenset[str]


def only_field(body: Body) -> str:
    """The name of the one field that is set in a body that takes exactly one."""
    given = [name for name in body.__struct_fields__ if getattr(body, name) is not None]
    if len(given) != 1:
        raise ApiError.malformed(
            f"expected exactly one of: {', '.join(body.__struct_encode_fields__)}"
        )
    return given[0]


def check_collection_name(name: str) -> None:
    """A name is also the name of a directory."""
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise ApiError.invalid(f"collection_name: must have 1 to {MAX_NAME_BYTES} bytes")
    if name in {".", ".."} or _FORBIDDEN_IN_NAMES & set(name):
        raise ApiError.invalid(
            f"collection_name: {name!r} contains characters that are not allowed"
        )


def check_point_ids(ids: Iterable[PointId]) -> None:
    for point_id in ids:
        if not is_point_id(point_id):
            raise ApiError.malformed(
                f"value {point_id} is not a valid point ID, "
                "valid values are either an unsigned integer or a UUID"
            )


def is_point_id(value: PointId) -> bool:
    """An unsigned 64-bit integer, or a UUID in any of its spellings."""
    if isinstance(value, str):
        try:
            uuid.UUID(value)
        except ValueError:
            return False
        return True
    # bool is an int to Python, and the engine would take True as point 1.
    return not isinstance(value, bool) and 0 <= value < 2**64


def check_points(points: list[Point], schema: VectorSchema) -> None:
    """Every point fits the collection; one that does not refuses all of them."""
    if not points:
        raise ApiError.wrong_input("Empty update request")
    check_point_ids(point.id for point in points)
    for point in points:
        check_vectors(point.vector, schema)
        if point.payload:
            check_payload(point.payload)


def check_vectors(vectors: Vectors, schema: VectorSchema) -> None:
    if isinstance(vectors, list):
        check_vector(UNNAMED, vectors, schema)
        return
    for name, vector in vectors.items():
        check_vector(name, vector, schema)


def check_vector(name: str, vector: NamedVector, schema: VectorSchema) -> None:
    """A vector of points or of a query is of the kind and size that the collection has under this
    name.
    """
    if name in schema.dense:
        if not isinstance(vector, list):
            raise ApiError.wrong_input(
                f"Conversion between sparse and regular vectors failed: {name!r} is dense"
            )
        _check_dense(vector, schema.dense[name])
    elif name in schema.sparse:
        if not isinstance(vector, SparseVector):
            raise ApiError.wrong_input(
                f"Conversion between sparse and regular vectors failed: {name!r} is sparse"
            )
        _check_sparse(vector)
    else:
        raise ApiError.wrong_input(f"Not existing vector name error: {name}")


def check_payload(payload: Payload) -> None:
    """Nested at most MAX_PAYLOAD_DEPTH deep, the payload itself counted."""
    level = [value for value in payload.values() if isinstance(value, dict | list)]
    depth = 1
    while level:
        depth += 1
        if depth > MAX_PAYLOAD_DEPTH:
            raise ApiError.invalid(f"payload: nested deeper than {MAX_PAYLOAD_DEPTH} levels")
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]


def _check_dense(vector: list[float], size: int) -> None:
    if len(vector) != size:
        raise ApiError.wrong_input(
            f"Vector dimension error: expected dim: {size}, got {len(vector)}"
        )
    _check_finite(vector)


def _check_sparse(vector: SparseVector) -> None:
    indices, values = vector.indices, vector.values
    if len(indices) != len(values):
        raise ApiError.invalid(
            f"values: must be the same length as indices, {len(values)} and {len(indices)}"
        )
    if len(set(indices)) != len(indices):
        raise ApiError.invalid("indices: must be unique")
    if indices and (min(indices) < 0 or max(indices) > _MAX_INDEX):
        raise ApiError.invalid(f"indices: must be from 0 to {_MAX_INDEX}")
    _check_finite(values)


def _check_finite(values: list[float]) -> None:
    # One call in C (2 us for 384 values): false for NaN, infinity, and whatever overflows as
    # float32.
    if not math.hypot(*values) <= _MAX_FLOAT32:
        raise ApiError.invalid("vector: values must be finite 32-bit floats")
