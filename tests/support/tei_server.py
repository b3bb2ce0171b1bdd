"""A TEI server for tests: the embedded one, or what the run was given (outside.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.ports import free_port
from local.servers import python_module
from tests.support.outside import outside
from tests.support.server_process import running_server

TEI_KEY = "a key for tests"


@contextmanager
def tei_server(directory: Path, *options: str, key: str = TEI_KEY) -> Iterator[str]:
    """Run a server with its cache and log in `directory`; the URL is good while the block runs.

    `options` have the names that TEI's own router and the embedded server share. A test that
    depends on them or on the key must be marked `own_server("tei")`: a server that the run was
    given by its URL has its own.
    """
    given = outside("tei")
    if given.is_shared:
        yield given.url
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [*_argv(directory, port, key), *options]
    with running_server(argv, f"{url}/health", directory / "tei.log"):
        yield url


def _argv(directory: Path, port: int, key: str) -> list[str]:
    given = outside("tei")
    if not given.command:
        argv = [*python_module("local.tei"), "--host", "127.0.0.1", "--port", str(port)]
        return [*argv, "--cache-dir", str(directory), *(["--api-key", key] if key else [])]
    argv = given.argv(port=port, data=directory, key=key)
    has_key = "{key}" in given.command or not key
    return argv if has_key else [*argv, "--api-key", key]
