"""The embedded Qdrant server as a child process of a test."""

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from local.ports import free_port
from shared.service.settings import QdrantSettings, Seconds, Secret

API_KEY = Secret("a key for tests")
_START_TIMEOUT = 20.0


@contextlib.contextmanager
def running_qdrant(data_dir: Path, port: int | None = None) -> Iterator[QdrantSettings]:
    """A server that answers, and how to reach it; ended with the block."""
    port = port or free_port()
    command = [sys.executable, "-m", "local.qdrant", "--host", "127.0.0.1", "--port", str(port)]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), "--api-key", API_KEY], stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_answering(url, process)
            yield QdrantSettings(qdrant_url=url, qdrant_api_key=API_KEY, qdrant_timeout=Seconds(10))
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_answering(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise AssertionError(f"the embedded Qdrant does not answer, exit status {process.poll()}")
