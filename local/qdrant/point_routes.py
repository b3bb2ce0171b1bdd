"""Routes about points: writes that share their flushes, and reads."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import qdrant_edge as edge
from aiohttp import web
from aiohttp.typedefs import Handler

from local.qdrant import bodies, points
from local.qdrant.collections import Directory
from local.qdrant.errors import ApiError, refusals
from local.qdrant.filters import to_filter
from local.qdrant.flush import GroupCommit
from local.qdrant.groups import query_groups
from local.qdrant.points import Write
from local.qdrant.query import (
    facet_request,
    query_request,
    record,
    scored,
    scroll_request,
    with_payload,
    with_vector,
)
from local.qdrant.replies import endpoint, read_body
from local.qdrant.validation import VectorSchema, check_point_ids

B = TypeVar("B")
Translation = Callable[[B, VectorSchema], list[Write]]
Read = Callable[[edge.EdgeShard, B, VectorSchema], Any]


class PointRoutes:
    """Handlers over one directory; a write with `wait=true` is answered when it is on disk."""

    def __init__(self, directory: Directory, commits: GroupCommit) -> None:
        self._directory = directory
        self._commits = commits

    def routes(self) -> list[web.RouteDef]:
        base = "/collections/{collection}/points"
        return [
            web.put(base, self._write(bodies.UpsertPoints, points.upsert)),
            web.post(base + "/delete", self._write(bodies.Selector, points.delete)),
            web.post(base + "/payload", self._write(bodies.SetPayload, points.set_payload)),
            web.put(base + "/payload", self._write(bodies.SetPayload, points.overwrite_payload)),
            web.post(
                base + "/payload/delete", self._write(bodies.DeletePayload, points.delete_payload)
            ),
            web.post(base + "/payload/clear", self._write(bodies.Selector, points.clear_payload)),
            web.post(base + "/batch", self._write(bodies.BatchUpdate, points.batch)),
            web.post(base, self._read(bodies.Retrieve, _retrieve)),
            web.post(base + "/scroll", self._read(bodies.Scroll, _scroll)),
            web.post(base + "/count", self._read(bodies.CountPoints, _count)),
            web.post(base + "/query", self._read(bodies.Query, _query)),
            web.post(base + "/query/batch", self._read(bodies.QueryBatch, _query_batch)),
            web.post(base + "/query/groups", self._read(bodies.QueryGroups, _query_groups)),
            web.post("/collections/{collection}/facet", self._read(bodies.Facet, _facet)),
        ]

    def _write(self, body_type: type[B], translate: Translation[B]) -> Handler:
        decoder = msgspec.json.Decoder(body_type)

        async def write(request: web.Request) -> Any:
            with self._commits.writer():
                results = await self._apply(request, await read_body(request, decoder), translate)
            return results if body_type is bodies.BatchUpdate else results[0]

        return endpoint(write)

    async def _apply(
        self, request: web.Request, body: B, translate: Translation[B]
    ) -> list[dict[str, Any]]:
        """One result for each operation, in order."""
        name, waits = request.match_info["collection"], _waits(request)
        with refusals():
            writes = translate(body, self._directory.require(name).schema)
        last = self._directory.apply(name, writes)
        if waits:
            await self._commits.durable()
        else:
            self._commits.lazily()
        status = "completed" if waits else "acknowledged"
        numbers = range(last - len(writes) + 1, last + 1)
        return [{"operation_id": number, "status": status} for number in numbers]

    def _read(self, body_type: type[B], read: Read[B]) -> Handler:
        decoder = msgspec.json.Decoder(body_type)

        async def answer(request: web.Request) -> Any:
            body = await read_body(request, decoder)
            collection = self._directory.require(request.match_info["collection"])
            return collection.read(lambda shard: read(shard, body, collection.schema))

        return endpoint(answer)


def _waits(request: web.Request) -> bool:
    value = request.query.get("wait", "false")
    if value not in {"true", "false"}:
        raise ApiError(
            400,
            f"Query deserialize error: wait: provided string was not `true` or `false`: {value!r}",
        )
    return value == "true"


def _retrieve(
    shard: edge.EdgeShard, body: bodies.Retrieve, _schema: VectorSchema
) -> list[dict[str, Any]]:
    check_point_ids(body.ids)
    payload, vector = with_payload(body.with_payload, default=True), with_vector(body.with_vector)
    found = shard.retrieve(body.ids, payload, vector)  # type: ignore[arg-type]
    return [record(point) for point in found]


def _scroll(shard: edge.EdgeShard, body: bodies.Scroll, _schema: VectorSchema) -> dict[str, Any]:
    found, next_id = shard.scroll(scroll_request(body))
    return {"points": [record(point) for point in found], "next_page_offset": next_id}


def _count(
    shard: edge.EdgeShard, body: bodies.CountPoints, _schema: VectorSchema
) -> dict[str, int]:
    return {"count": shard.count(edge.CountRequest(True, to_filter(body.filter)))}


def _facet(shard: edge.EdgeShard, body: bodies.Facet, _schema: VectorSchema) -> dict[str, Any]:
    return {
        "hits": [
            {"value": hit.value, "count": hit.count}
            for hit in shard.facet(facet_request(body)).hits
        ]
    }


def _query(shard: edge.EdgeShard, body: bodies.Query, schema: VectorSchema) -> dict[str, Any]:
    return {"points": [scored(point) for point in shard.query(query_request(body, schema))]}


def _query_batch(
    shard: edge.EdgeShard, body: bodies.QueryBatch, schema: VectorSchema
) -> list[dict[str, Any]]:
    queries = [query_request(search, schema) for search in body.searches]
    answers = shard.query_batch(edge.QueryBatchRequest(queries))
    return [{"points": [scored(point) for point in answer]} for answer in answers]


def _query_groups(
    shard: edge.EdgeShard, body: bodies.QueryGroups, schema: VectorSchema
) -> dict[str, Any]:
    return {"groups": query_groups(shard, body, schema)}
