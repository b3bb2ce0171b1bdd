"""A Qdrant that takes 100 ms an upsert and keeps no vectors: `python -m bench.stand_ins.qdrant
--port 6333`.

It knows collections, and of points their ids and documents. GET /counts says what was written, POST
/reset begins anew.
"""

import argparse
import asyncio
from collections import Counter
from typing import Any

import msgspec
import uvloop
from aiohttp import web

_UPSERT_SECONDS = 0.1
_MAX_BODY_BYTES = 64 * 1024 * 1024


class Counts(msgspec.Struct):
    """What was written since the last reset."""

    upserts: int = 0
    points: int = 0
    distinct_ids: int = 0
    chunks_by_url: dict[str, int] = {}


class QdrantStandIn:
    """The server's state and routes."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        self._counts = Counts()
        self._urls: dict[str, str] = {}  # of each point

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        one = "/collections/{name}"
        app.router.add_get("/", self._root)
        app.router.add_get("/healthz", self._root)
        app.router.add_get("/aliases", self._list_aliases)
        app.router.add_get("/collections", self._list)
        app.router.add_post("/collections/aliases", self._change_aliases)
        app.router.add_get(f"{one}/exists", self._exists)
        app.router.add_get(one, self._get)
        app.router.add_put(one, self._create)
        app.router.add_put(f"{one}/index", self._index)
        app.router.add_put(f"{one}/points", self._upsert)
        app.router.add_post(f"{one}/points/delete", self._done)
        app.router.add_post(f"{one}/points/scroll", self._scroll)
        app.router.add_post(f"{one}/points", self._retrieve)
        app.router.add_get("/counts", self._report)
        app.router.add_post("/reset", self._reset)
        return app

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response({"title": "qdrant - vector search engine", "version": "1.20.0"})

    async def _list(self, _: web.Request) -> web.Response:
        return _answer({"collections": [{"name": name} for name in self._collections]})

    async def _list_aliases(self, _: web.Request) -> web.Response:
        return _answer(
            {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self._aliases.items()]}
        )

    async def _change_aliases(self, request: web.Request) -> web.Response:
        for action in (await _body(request))["actions"]:
            if made := action.get("create_alias"):
                self._aliases[made["alias_name"]] = made["collection_name"]
        return _answer(True)

    async def _exists(self, request: web.Request) -> web.Response:
        return _answer({"exists": request.match_info["name"] in self._collections})

    async def _create(self, request: web.Request) -> web.Response:
        self._collections[request.match_info["name"]] = {
            "asked": await _body(request),
            "indexes": {},
        }
        return _answer(True)

    async def _index(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        schema = asked.get("field_schema") or "keyword"
        kind = schema["type"] if isinstance(schema, dict) else schema
        indexes = self._collections[request.match_info["name"]]["indexes"]
        indexes[asked["field_name"]] = {"data_type": kind, "points": 0}
        return _operation()

    async def _get(self, request: web.Request) -> web.Response:
        collection = self._collections.get(request.match_info["name"])
        if collection is None:
            return web.json_response(
                {"status": {"error": "Not found: Collection"}, "time": 0.0}, status=404
            )
        asked = collection["asked"]
        parameters = {
            name: asked[name] for name in ("vectors", "sparse_vectors") if asked.get(name)
        }
        config = {
            "params": parameters, "metadata": asked.get("metadata"), "hnsw_config": {"m": 16, "ef_construct": 100,
            "full_scan_threshold": 10000}, "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number":
            1000, "default_segment_number": 0, "flush_interval_sec": 5}, "wal_config": {"wal_capacity_mb": 32,
            "wal_segments_ahead": 0},
        }  # fmt: skip
        return _answer(
            {
                "status": "green", "optimizer_status": "ok", "points_count": len(self._urls), "segments_count": 1,
                "config": config, "payload_schema": collection["indexes"],
            }
        )  # fmt: skip

    async def _upsert(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if "batch" in body:
            points = dict(zip(body["batch"]["ids"], body["batch"]["payloads"], strict=True))
        else:
            points = {point["id"]: point["payload"] for point in body["points"]}
        await asyncio.sleep(_UPSERT_SECONDS)
        self._urls |= {point_id: _url(payload) for point_id, payload in points.items()}
        self._counts.upserts += 1
        self._counts.points += len(points)
        return _operation()

    async def _scroll(self, _: web.Request) -> web.Response:
        return _answer({"points": [], "next_page_offset": None})

    async def _retrieve(self, _: web.Request) -> web.Response:
        return _answer([])

    async def _done(self, _: web.Request) -> web.Response:
        return _operation()

    async def _report(self, _: web.Request) -> web.Response:
        self._counts.distinct_ids = len(self._urls)
        self._counts.chunks_by_url = Counter(self._urls.values())
        return web.Response(body=msgspec.json.encode(self._counts), content_type="application/json")

    async def _reset(self, _: web.Request) -> web.Response:
        self._counts = Counts()
        self._urls.clear()
        return web.Response()


async def _body(request: web.Request) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(await request.read())
    return body


def _url(payload: dict[str, Any]) -> str:
    """Ours and LlamaIndex' points have it at the top, Haystack's in `meta`."""
    return str(payload.get("url") or payload["meta"]["url"])


def _answer(result: object) -> web.Response:
    return web.json_response({"result": result, "status": "ok", "time": 0.0})


def _operation() -> web.Response:
    return _answer({"operation_id": 0, "status": "completed"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stand_ins.qdrant", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    web.run_app(
        QdrantStandIn().app(), host="127.0.0.1", port=options.port, print=None, access_log=None,
        loop=uvloop.new_event_loop(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
