"""A Qdrant server for tests: the embedded one, or what the run was given (outside.py)."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from local.ports import free_port
from local.servers import python_module
from shared.service.settings import QdrantSettings, Seconds, Secret
from tests.support.outside import is_own, outside
from tests.support.server_process import running_server

API_KEY = Secret("a key for tests")


@contextlib.contextmanager
def running_qdrant(data_dir: Path, port: int | None = None) -> Iterator[QdrantSettings]:
    """A server for the block, and how to reach it.

    A test that stops it by leaving the block and starts it again with the same directory and port
    must be marked `own_server("qdrant")`. On a server that the run shares with others, collections
    need names from `own_name`; those are dropped after the block.
    """
    if outside("qdrant").is_shared:
        yield shared_qdrant()
        drop_collections(own_collections())
        return
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    argv = qdrant_argv(data_dir, port, API_KEY)
    with running_server(argv, f"{url}/healthz", data_dir.parent / f"{data_dir.name}.log"):
        yield qdrant_settings(url, API_KEY)


def shared_qdrant() -> QdrantSettings:
    """How to reach the server that the run was given by its URL."""
    given = outside("qdrant")
    return qdrant_settings(given.url, given.key)


def qdrant_argv(data_dir: Path, port: int, key: str) -> list[str]:
    """The command of a server of one's own."""
    given = outside("qdrant")
    if given.command:
        return given.argv(port=port, data=data_dir, key=key)
    options = ("--host", "127.0.0.1", "--port", str(port), "--api-key", key)
    return [*python_module("local.qdrant"), *options, "--data-dir", str(data_dir)]


def own_collections() -> list[str]:
    """What this run has made with names from `own_name` on the shared server."""
    with _shared_http() as http:
        found = http.get("/collections").raise_for_status().json()["result"]["collections"]
    return [each["name"] for each in found if is_own(each["name"])]


def drop_collections(names: Sequence[str]) -> None:
    """Drop collections of the shared server, those that exist."""
    if not names:
        return
    with _shared_http() as http:
        for name in names:
            http.delete(f"/collections/{name}").raise_for_status()


def _shared_http() -> httpx.Client:
    given = outside("qdrant")
    headers = {"api-key": given.key} if given.key else {}
    return httpx.Client(base_url=given.url, headers=headers, timeout=30.0, trust_env=False)


def qdrant_settings(url: str, key: str) -> QdrantSettings:
    return QdrantSettings(qdrant_url=url, qdrant_api_key=Secret(key), qdrant_timeout=Seconds(10))
