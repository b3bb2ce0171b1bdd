"""The embedded TEI server as a child process of a test run."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.ports import free_port


@contextmanager
def tei_server(directory: Path, *options: str) -> Iterator[str]:
    """Run `python -m local.tei` with its cache and log in `directory`; the URL is good while the block runs."""
    port = free_port()
    command = [sys.executable, "-m", "local.tei", "--port", str(port), "--host", "127.0.0.1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
    log = directory / "tei.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--cache-dir", str(directory), *options], stdout=output, stderr=output, env=environment
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"the embedded TEI server is not ready:\n{log.read_text(errors='replace')}")
