"""Pid files: what a killed parent left running is found and stopped at the next start, and nothing else is.

A pid alone proves nothing (it may belong to somebody else by now); it is signalled only if the process's start time is
the recorded one.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from local.datadir import write_private

_LEFTOVER_GRACE = 10.0  # seconds; a leftover was signalled by its parent's death already, where the kernel does that
_POLL_INTERVAL = 0.02
_HAS_PROC = sys.platform == "linux"


class PidRecord(msgspec.Struct, frozen=True):
    """A process that was started; `identity` tells it from a later one with the same pid."""

    name: str
    pid: int
    identity: str
    stop_signal: int


class PidFiles:
    """The pid files of one data directory, a file per name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def record(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        identity = process_identity(pid)
        if identity is not None:
            write_private(self._path(name), msgspec.json.encode(PidRecord(name, pid, identity, stop_signal)))

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    async def stop_leftovers(self) -> list[str]:
        """Stop what an earlier parent left running, all at once; returns the names. Takes up to 10 s."""
        leftovers = [record for record in self._records() if _is_alive(record)]
        await asyncio.gather(*(stop_leftover(record) for record in leftovers))
        self._clear()
        return [record.name for record in leftovers]

    def _clear(self) -> None:
        for path in self._directory.glob("*.pid"):
            path.unlink()

    def _records(self) -> Iterator[PidRecord]:
        for path in sorted(self._directory.glob("*.pid")):
            with contextlib.suppress(msgspec.DecodeError):  # not one of ours
                yield msgspec.json.decode(path.read_bytes(), type=PidRecord)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pid"


async def stop_leftover(record: PidRecord) -> None:
    """End the recorded process: its stop signal, 10 s, SIGKILL. Returns when it is gone."""
    _signal(record, record.stop_signal)
    try:
        await asyncio.wait_for(_until_gone(record), _LEFTOVER_GRACE)
    except TimeoutError:
        _signal(record, signal.SIGKILL)
        await _until_gone(record)


def process_identity(pid: int) -> str | None:
    """A text that no other process with this pid has, before or after; None if there is no such process.

    A zombie counts as gone: it holds no port and no file.
    """
    if _HAS_PROC:
        return _linux_identity(pid)
    state, _, started = _ps(pid, "stat=,lstart=").partition(" ")
    return started.strip() or None if not state.startswith("Z") else None


def command_line(pid: int) -> str:
    """The process's arguments, or nothing if it is gone."""
    if _HAS_PROC:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    return _ps(pid, "command=")


def _linux_identity(pid: int) -> str | None:
    try:
        # The second field is the command's name in parentheses and may hold spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in {"Z", "X"} else f"{boot}:{start_ticks}"


def _ps(pid: int, columns: str) -> str:
    done = subprocess.run(["ps", "-o", columns, "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip()


def _is_alive(record: PidRecord) -> bool:
    return process_identity(record.pid) == record.identity


def _signal(record: PidRecord, number: int) -> None:
    if _is_alive(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


async def _until_gone(record: PidRecord) -> None:
    while _is_alive(record):  # noqa: ASYNC110 - nobody tells about another parent's child
        await asyncio.sleep(_POLL_INTERVAL)
