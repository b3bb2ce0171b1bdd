"""A server as a child process of a test: TEI or Qdrant."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from tests.support.waiting import block_until

_START_TIMEOUT = 180.0  # seconds; a TEI may load its model from the network
_STOP_TIMEOUT = 30.0


@contextlib.contextmanager
def running_server(argv: Sequence[str], health_url: str, log_path: Path) -> Iterator[None]:
    """Run a server, which responds when the block begins; it is ended with the block."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
    with log_path.open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environ, cwd=log_path.parent)
    try:
        block_until(
            lambda: process.poll() is not None or _is_healthy(health_url),
            timeout=_START_TIMEOUT,
            description=f"a response of {health_url}",
        )
        log_end = log_path.read_text(errors="replace")[-4000:]
        assert process.poll() is None, f"{argv[0]} ended with {process.returncode}:\n{log_end}"
        yield
    finally:
        process.terminate()
        process.wait(_STOP_TIMEOUT)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
