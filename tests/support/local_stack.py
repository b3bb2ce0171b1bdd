"""For tests of the embedded stack: directories, environments and child processes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from local.pidfile import process_identity
from local.services import SERVICES


@contextlib.contextmanager
def enterable_directory() -> Iterator[Path]:
    """A temporary directory that other users can pass through.

    Postgres runs as another user, and pytest's tmp_path is closed to it.
    """
    directory = Path(tempfile.mkdtemp(prefix="millstream-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def bare_environ(**settings: str) -> dict[str, str]:
    """This process's environment without its `WEBHOOK_` variables, and `settings`.

    Every service takes a free port: a test must not take the default one from a real deployment.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")
    }
    free_ports = {f"WEBHOOK_{service.upper()}_PORT": "0" for service in SERVICES}
    return inherited | free_ports | settings


@contextlib.contextmanager
def running(*argv: str, uid: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process of the test's own, killed at the end; its stdout can be read line by line."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, text=True, user=uid, env=bare_environ()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def running_script(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program, given as text, that runs in a process of its own."""
    with running(sys.executable, "-c", source, *arguments) as process:
        yield process


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints; empty at its end."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return process_identity(pid) is not None


def owner(pid: int) -> int:
    """The user that the process runs as (Linux)."""
    return Path(f"/proc/{pid}").stat().st_uid


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that run now (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]
