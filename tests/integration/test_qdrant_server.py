"""The embedded vector store as a process: what survives which end, and what it answers to bad
requests.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import qdrant_edge as edge

from local.ports import free_port
from local.qdrant import bodies
from local.qdrant.collections import Directory, DirectoryInUseError
from local.qdrant.errors import ApiError, EnginePanicError
from local.qdrant.points import Write
from local.qdrant.replies import MAX_BODY_BYTES
from tests.support.waiting import wait_until

pytestmark = pytest.mark.embedded_server("qdrant")

KEY = "a key of the server"
COLLECTION = {
    "vectors": {"dense": {"size": 2, "distance": "Dot"}},
    "sparse_vectors": {"bm25": {"modifier": "idf"}},
}


class Server:
    """One process on one data directory; killed at the end of the block unless a test ended it."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / f"{data_dir.name}.log"
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "local.qdrant",
            f"--port={self.port}",
            f"--data-dir={data_dir}",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/readyz", timeout=1).raise_for_status()
                return
        raise AssertionError(
            f"the server does not answer, exit status {self.process.poll()}: {self.log.read_text()}"
        )

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def running(data_dir: Path, *options: str) -> Iterator[Server]:
    server = Server(data_dir, *options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait(timeout=20)


@contextlib.asynccontextmanager
async def http_to(server: Server, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=server.url, timeout=30, headers=headers, trust_env=False
    ) as http:
        yield http


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that do not end it; its collection `c` has one point, and no test changes
    it.
    """
    with running(tmp_path_factory.mktemp("qdrant") / "data") as server:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
            http.put("/collections/c", json=COLLECTION).raise_for_status()
            http.put(
                "/collections/c/points?wait=true", json={"points": [{"id": 1, "vector": {}}]}
            ).raise_for_status()
        yield server


@pytest.fixture
async def http(shared: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared server."""
    async with http_to(shared) as found:
        yield found


async def make(http: httpx.AsyncClient, name: str) -> None:
    (await http.put(f"/collections/{name}", json=COLLECTION)).raise_for_status()
    (await upsert(http, name, [1])).raise_for_status()


async def upsert(
    http: httpx.AsyncClient, name: str, ids: list[int], *, wait: bool = True, **payload: Any
) -> httpx.Response:
    points = [
        {
            "id": n,
            "vector": {"dense": [n, 1], "bm25": {"indices": [n], "values": [1]}},
            "payload": payload,
        }
        for n in ids
    ]
    return await http.put(
        f"/collections/{name}/points", params={"wait": str(wait).lower()}, json={"points": points}
    )


async def stored(http: httpx.AsyncClient, name: str) -> set[int]:
    answer = await http.post(
        f"/collections/{name}/points/scroll", json={"limit": 100_000, "with_payload": False}
    )
    return {point["id"] for point in answer.raise_for_status().json()["result"]["points"]}


def has(ids: set[int], count: int) -> bool:
    return len(ids) >= count


def wal_megabytes(data_dir: Path) -> float:
    return sum(file.stat().st_size for file in data_dir.glob("collections/*/shard/wal/*")) / 1e6


async def test_kill_9_loses_no_acknowledged_write(data_dir: Path) -> None:
    acknowledged: set[int] = set()
    deleted: set[int] = set()
    numbers = itertools.count(10, 8)

    async def write(http: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.TransportError):
            for first in numbers:
                batch = list(range(first, first + 8))
                (await upsert(http, "c", batch)).raise_for_status()
                acknowledged.update(batch[1:])
                gone = {"points": batch[:1]}
                (
                    await http.post("/collections/c/points/delete?wait=true", json=gone)
                ).raise_for_status()
                deleted.update(batch[:1])

    for round_number in range(3):
        with running(data_dir) as server:
            async with http_to(server) as http:
                if round_number == 0:
                    await make(http, "c")
                assert acknowledged <= await stored(http, "c")
                assert not deleted & await stored(http, "c")
                writers = asyncio.gather(*(write(http) for _ in range(3)))
                enough = len(acknowledged) + 100
                await wait_until(
                    partial(has, acknowledged, enough), timeout=30, description="100 more writes"
                )
                server.end(signal.SIGKILL)
                await writers
    with running(data_dir) as server:
        async with http_to(server) as http:
            assert acknowledged <= await stored(http, "c")
            assert not deleted & await stored(http, "c")
    assert len(acknowledged) >= 300


async def test_an_acknowledged_write_is_flushed_and_not_only_in_the_log(
    data_dir: Path, tmp_path: Path
) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            await make(http, "c")
            await asyncio.gather(*(upsert(http, "c", [n, n + 1]) for n in range(10, 30, 2)))
            copy = shutil.copytree(data_dir / "collections" / "c" / "shard", tmp_path / "copy")
    shutil.rmtree(copy / "wal")
    shard = edge.EdgeShard.load(str(copy))
    assert {record.id for record in shard.scroll(edge.ScrollRequest(limit=100))[0]} == {
        1,
        *range(10, 30),
    }
    shard.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0_and_everything_flushed(
    data_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            await make(http, "c")
            assert (await upsert(http, "c", [2, 3], wait=False)).json()["result"][
                "status"
            ] == "acknowledged"
            assert server.end(number) == 0
    shutil.rmtree(data_dir / "collections" / "c" / "shard" / "wal")
    with running(data_dir) as server:
        async with http_to(server) as http:
            assert await stored(http, "c") == {1, 2, 3}


async def test_collections_indexes_aliases_and_metadata_are_there_after_kill_9(
    data_dir: Path,
) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            for name in ("one", "two", "zwei ü"):
                await make(http, name)
            await http.delete("/collections/two")
            index = {"field_name": "k", "field_schema": {"type": "keyword", "prefix": True}}
            (await http.put("/collections/one/index?wait=true", json=index)).raise_for_status()
            (
                await http.patch("/collections/one", json={"metadata": {"generation": "g"}})
            ).raise_for_status()
            alias = {
                "actions": [{"create_alias": {"collection_name": "one", "alias_name": "eins"}}]
            }
            (await http.post("/collections/aliases", json=alias)).raise_for_status()
            server.end(signal.SIGKILL)
    with running(data_dir) as server:
        async with http_to(server) as http:
            listed = (await http.get("/collections")).json()["result"]["collections"]
            assert [one["name"] for one in listed] == ["one", "zwei ü"]
            info = (await http.get("/collections/eins")).json()["result"]
            assert info["config"]["metadata"] == {"generation": "g"}
            assert info["payload_schema"]["k"]["params"]["prefix"] is True
            assert await stored(http, "zwei ü") == {1}


async def test_the_log_does_not_grow_with_what_is_written(data_dir: Path) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            await make(http, "c")
            for _ in range(8):
                (await upsert(http, "c", [1, 2], text="x" * 10_000_000)).raise_for_status()
            assert (
                wal_megabytes(data_dir) <= 3 * 33.6
            )  # of 160 MB: one full segment, one in use, one prepared


async def test_a_collection_that_cannot_be_loaded_is_set_aside_and_the_others_serve(
    data_dir: Path,
) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            await make(http, "bad")
            await make(http, "good")
            server.end(signal.SIGTERM)
    shutil.rmtree(data_dir / "collections" / "bad" / "shard" / "segments")
    for broken in (data_dir / "collections" / "bad" / "shard").glob("*.json"):
        broken.write_text("{")
    (data_dir / "collections" / "half").mkdir()
    with running(data_dir) as server:
        async with http_to(server) as http:
            answer = await http.post("/collections/bad/points/count", json={})
            assert (answer.status_code, answer.json()["status"]["error"]) == (
                404,
                "Not found: Collection `bad` doesn't exist!",
            )
            assert await stored(http, "good") == {1}
            await make(http, "bad")
    assert (data_dir / "set-aside" / "bad.1" / "collection.json").exists()
    assert not (data_dir / "collections" / "half").exists()
    log = server.log.read_text()
    assert "Collection cannot be loaded, set aside" in log
    assert "Collection was never finished, removing it" in log


async def test_a_second_server_does_not_touch_the_directory(data_dir: Path) -> None:
    with running(data_dir) as server:
        async with http_to(server) as http:
            await make(http, "c")
            second = Server(data_dir)
            assert second.process.wait(timeout=20) == 1
            assert "another server runs on" in second.log.read_text()
            with pytest.raises(DirectoryInUseError):
                Directory.open(data_dir)
            assert await stored(http, "c") == {1}


def test_a_panic_of_the_engine_ends_one_write_and_the_collection_goes_on(data_dir: Path) -> None:
    directory = Directory.open(data_dir)
    directory.create(
        "c", bodies.CreateCollection(sparse_vectors={"bm25": bodies.SparseVectorParams()})
    )
    good = edge.Point(1, {"bm25": edge.SparseVector([1], [1.0])}, {"n": 1})
    bad = edge.Point(
        2, {"bm25": edge.SparseVector([1, 2, 3], [1.0])}, {}
    )  # past every check: indices without values
    directory.apply("c", [Write(edge.UpdateOperation.upsert_points([good]))])
    with pytest.raises(EnginePanicError):
        directory.apply("c", [Write(edge.UpdateOperation.upsert_points([bad]))])
    directory.apply("c", [Write(edge.UpdateOperation.upsert_points([good]))])
    assert directory.require("c").read(lambda shard: shard.retrieve([1], True, False))[
        0
    ].payload == {"n": 1}
    directory.close()
    reopened = Directory.open(data_dir)
    assert reopened.names() == ["c"]
    reopened.close()


async def test_a_key_is_asked_for_everywhere_but_on_the_health_routes(data_dir: Path) -> None:
    with running(data_dir, "--api-key", KEY) as server:
        async with http_to(server) as http:
            for path in ("/", "/healthz", "/readyz", "/livez"):
                assert (await http.get(path)).status_code == 200
            for path in ("/collections", "/collections/c", "/nowhere"):
                answer = await http.get(path)
                assert answer.status_code == 401
                assert (
                    answer.json()["status"]["error"]
                    == "Must provide an API key or an Authorization bearer token"
                )
            for header, value in {"api-key": KEY[:-1], "Authorization": f"Bearer {KEY}x"}.items():
                answer = await http.get("/collections", headers={header: value})
                assert (answer.status_code, answer.json()["status"]["error"]) == (
                    401,
                    "Invalid API key or JWT",
                )
            for header, value in {"api-key": KEY, "Authorization": f"Bearer {KEY}"}.items():
                assert (await http.get("/collections", headers={header: value})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"points": [{"id": 2, "vector": {"dense": [NaN, 1]}}]}',
        b'{"points": [{"id": 2, "vector": {"dense": [1e999, 1]}}]}',
        b'{"points": [{"id": 2, "vector": {"dense": [1, 1]}, "payload": '
        + b'{"a":' * 900
        + b"1"
        + b"}" * 900
        + b"}]}",
        b'{"points": [{"id": 2, "vector": {}, "payload": {"a": "\xff"}}]}',
        b'{"points": [{"id": 2, "vector": {}, "payload": {"a": "\\ud800"}}]}',
        b'{"points": [{"id": 2, "vector": {}}, {"id": "two", "vector": {}}]}',
        b'{"points": [{"id": 2, "vector": {}}, {"id": 3, "vector": {"bm25": {"indices": [1, 2], "values": [1]}}}]}',
        b'{"points": [{"id": 2, "vector": {}}], "update_filter": {"must": [{"key": "[[", "match": {"value": 1}}]}}',
        b'{"points": []}',
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
async def test_a_body_that_makes_no_sense_is_refused_and_nothing_is_written(
    http: httpx.AsyncClient, body: bytes
) -> None:
    answer = await http.put("/collections/c/points?wait=true", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["status"]["error"]
    assert await stored(http, "c") == {1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/nowhere", None, 404, "no GET /nowhere"),
        ("POST", "/collections/c/points/search", {}, 404, "this server has no POST"),
        (
            "PUT",
            "/collections/c/points?wait=yes",
            {"points": [{"id": 2, "vector": {}}]},
            400,
            "wait",
        ),
        (
            "PUT",
            "/collections/missing/points",
            {"points": [{"id": 2, "vector": {}}]},
            404,
            "`missing` doesn't exist",
        ),
        ("PUT", "/collections/c", COLLECTION, 409, "`c` already exists"),
        ("PUT", "/collections/a%3Ab", COLLECTION, 422, "collection_name"),
        ("PUT", "/collections/c/index", {"field_name": "a", "field_schema": "geo"}, 400, "geo"),
        (
            "PUT",
            "/collections/c/index",
            {"field_name": "[", "field_schema": "keyword"},
            400,
            "JSON path",
        ),
        (
            "POST",
            "/collections/c/points/payload",
            {"payload": {"a": 1}, "points": [1, 9]},
            404,
            "No point with id 9",
        ),
        (
            "POST",
            "/collections/c/points/payload",
            {"payload": {"a": 1}},
            400,
            "`points` or `filter`",
        ),
        (
            "POST",
            "/collections/c/points/query",
            {"query": [1.0], "using": "dense"},
            400,
            "expected dim: 2, got 1",
        ),
        (
            "POST",
            "/collections/c/points/query",
            {"query": {"fusion": "rrf"}},
            400,
            "without prefetches",
        ),
        (
            "POST",
            "/collections/c/points/query",
            {"query": {"nearest": 1}, "using": "dense"},
            400,
            "not supported",
        ),
        (
            "POST",
            "/collections/c/points/query/groups",
            {"query": [1, 1], "group_by": "a[]"},
            400,
            "group_by",
        ),
        ("POST", "/collections/c/points/scroll", {"order_by": "nothing"}, 400, "No range index"),
        ("POST", "/collections/c/points/scroll", {"order_by": "n", "offset": 1}, 400, "offset"),
        ("POST", "/collections/c/facet", {"key": "nothing"}, 400, "No appropriate index"),
    ],
)
async def test_a_refusal_says_why(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    answer = await http.request(method, path, json=body)
    assert answer.status_code == status
    assert reason in answer.json()["status"]["error"]
    assert answer.json()["time"] == 0


async def test_a_missing_point_leaves_the_payloads_of_the_others_alone(
    http: httpx.AsyncClient,
) -> None:
    await http.post(
        "/collections/c/points/payload?wait=true", json={"payload": {"a": 1}, "points": [1, 9]}
    )
    records = (await http.post("/collections/c/points", json={"ids": [1]})).json()["result"]
    assert records[0]["payload"] == {}


async def test_a_body_over_the_limit_is_413_and_one_just_under_it_is_taken(
    http: httpx.AsyncClient,
) -> None:
    await make(http, "large")
    assert (await upsert(http, "large", [2], text="x" * MAX_BODY_BYTES)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(33):
            yield b" " * 2**20

    assert (await http.put("/collections/large/points", content=chunks())).status_code == 413
    assert (await upsert(http, "large", [3], text="x" * (MAX_BODY_BYTES - 1000))).status_code == 200
    assert await stored(http, "large") == {1, 3}


async def test_a_body_that_does_not_unpack_is_refused(http: httpx.AsyncClient) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer = await http.put("/collections/c/points", content=b"not gzip", headers=headers)
    assert answer.status_code == 400


async def test_the_client_can_tell_which_release_it_talks_to(http: httpx.AsyncClient) -> None:
    version = (await http.get("/")).json()["version"]
    assert version.startswith("1.20.0-edge")


def test_a_client_that_disconnects_in_the_middle_of_a_body_writes_nothing_and_delays_no_other(
    shared: Server,
) -> None:
    logged = shared.log.stat().st_size
    body = b'{"points": [{"id": 2, "vector": {}}]}'
    head = (
        b"PUT /collections/gone/points?wait=true HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    with httpx.Client(base_url=shared.url, timeout=10, trust_env=False) as http:
        http.put("/collections/gone", json=COLLECTION).raise_for_status()
        with socket.create_connection(("127.0.0.1", shared.port)) as half_sent:
            half_sent.sendall(head + body[:-5])
            other = {"points": [{"id": 3, "vector": {}}]}
            http.put("/collections/gone/points?wait=true", json=other).raise_for_status()
        with socket.create_connection(("127.0.0.1", shared.port)) as not_waiting:
            not_waiting.sendall(head.replace(b"%d" % len(body), b"%d" % (len(body) * 2)) + body)
        http.put("/collections/gone/points?wait=true", json=other).raise_for_status()
        assert http.post("/collections/gone/points/count", json={}).json()["result"] == {"count": 1}
    assert shared.process.poll() is None
    assert b"Traceback" not in shared.log.read_bytes()[logged:]


def test_a_collection_that_cannot_be_made_leaves_nothing_behind(data_dir: Path) -> None:
    directory = Directory.open(data_dir)
    blocked = data_dir / "collections" / "c"
    blocked.parent.chmod(0o500)
    if os.geteuid() == 0:
        blocked.write_text("in the way")  # root may write anywhere
    with pytest.raises(OSError, match=r"."):
        directory.create(
            "c", bodies.CreateCollection(sparse_vectors={"bm25": bodies.SparseVectorParams()})
        )
    blocked.parent.chmod(0o700)
    blocked.unlink(missing_ok=True)
    with pytest.raises(ApiError):
        directory.require("c")
    directory.create(
        "c", bodies.CreateCollection(sparse_vectors={"bm25": bodies.SparseVectorParams()})
    )
    directory.close()
