"""Kills what a test run has started once the run itself is gone, however it ended (Linux).

Every process that the run starts, directly or not, inherits a mark in its environment. A process
beside the run waits until the run is gone and then kills all marked processes, frozen ones too.
What has another environment (Redis, Postgres) is stopped by the guard of its stack
(local/guard.py), which is the one marked process that is spared.

The file is also that process's program. It imports nothing of the project, to start fast.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "MILLSTREAM_TEST_RUN"

_SPARED = b"local.guard"
_QUIET_LOOKS = 5  # without a marked process; a supervisor that is killed late may have started one
_LOOK_INTERVAL = 0.05  # seconds


@contextlib.contextmanager
def guarded_run() -> Iterator[None]:
    """If this process ends within the block, what it has started in the block is killed."""
    if sys.platform != "linux":
        yield
        return
    mark = secrets.token_hex(8)
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark],
        stdin=read_end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={},  # without the mark of an outer run, such as xdist's, whose guard would kill it
    )
    os.close(read_end)
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
        os.close(write_end)
        guard.wait()


def kill_marked(mark: str) -> None:
    """Kill every process with this mark, until there is none."""
    quiet_looks = 0
    while quiet_looks < _QUIET_LOOKS:
        pids = list(marked(mark))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet_looks = 0 if pids else quiet_looks + 1
        time.sleep(_LOOK_INTERVAL)


def marked(mark: str) -> Iterator[int]:
    """The processes with this mark that are to be killed."""
    entry = f"{MARK}={mark}".encode()
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it is gone, or belongs to someone else
            if not directory.name.isdecimal():
                continue
            has_mark = entry in (directory / "environ").read_bytes().split(b"\0")
            if has_mark and _SPARED not in (directory / "cmdline").read_bytes().split(b"\0"):
                yield int(directory.name)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])


if __name__ == "__main__":
    main()
