"""Pid files: they name the processes of a stack, so that those a killed parent left are stopped.

The stack's guard (guard.py) stops them at once, and the next start of the stack stops what is left.
A pid alone proves nothing, because another process may have it by now: a process is signalled only
if its start time is the recorded one.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from local.datadir import write_private

# Seconds between the stop signal and SIGKILL. On Linux the kernel has signalled the leftover
# before.
_LEFTOVER_GRACE = 10.0
_POLL_INTERVAL = 0.02
_HAS_PROC = sys.platform == "linux"


class PidRecord(msgspec.Struct, frozen=True):
    """A process that was started; `identity` tells it from a later one with the same pid.

    `starter` is the pid of the process that started it.
    """

    name: str
    pid: int
    identity: str
    stop_signal: int
    starter: int = 0  # unknown


class PidFiles:
    """The pid files of one data directory, a file per name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def record(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        identity = process_identity(pid)
        if identity is not None:
            record = PidRecord(name, pid, identity, stop_signal, starter=os.getpid())
            write_private(self._path(name), msgspec.json.encode(record))

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    async def stop_leftovers(self) -> list[str]:
        """Stop what an earlier parent left running, and remove all files; returns the names.

        All processes are stopped at the same time. Takes up to 10 s.
        """
        names = await self.stop_recorded()
        for path in self.directory.glob("*.pid"):
            path.unlink()
        return names

    async def stop_recorded(self, starter: int | None = None) -> list[str]:
        """Stop the recorded processes that run; returns their names. Keeps the files.

        With `starter`, only those that this process has started.
        """
        running = [
            record
            for record in self._records()
            if starter in {None, record.starter} and _is_alive(record)
        ]
        await asyncio.gather(*(stop_leftover(record) for record in running))
        return [record.name for record in running]

    def _records(self) -> Iterator[PidRecord]:
        for path in sorted(self.directory.glob("*.pid")):
            with contextlib.suppress(msgspec.DecodeError):  # not one of ours
                yield msgspec.json.decode(path.read_bytes(), type=PidRecord)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.pid"


async def stop_leftover(record: PidRecord) -> None:
    """Stop the recorded process and all its descendants: its stop signal, 10 s, SIGKILL.

    Frozen processes (SIGSTOP) are continued, otherwise the stop signal would wait. Returns when all
    of them are gone.
    """
    family = [record, *_descendants(record)]
    _signal([record], record.stop_signal)
    _signal(family, signal.SIGCONT)
    try:
        await asyncio.wait_for(_until_gone(family), _LEFTOVER_GRACE)
    except TimeoutError:
        _signal(family, signal.SIGKILL)
        await _until_gone(family)


def process_identity(pid: int) -> str | None:
    """A text that no other process with this pid has, before or after; None without a process.

    A zombie counts as gone: it holds no port and no file.
    """
    if _HAS_PROC:
        return _linux_identity(pid)
    state, _, started = _ps("-p", str(pid), "-o", "stat=,lstart=").partition(" ")
    return started.strip() or None if not state.startswith("Z") else None


def command_line(pid: int) -> str:
    """The process's arguments, or nothing if it is gone."""
    if _HAS_PROC:
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            return arguments.decode(errors="replace")
        return ""
    return _ps("-p", str(pid), "-o", "command=")


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, those that they started, and so on."""
    parents = _parents()
    found = [pid]
    for parent in found:  # grows while it is read
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _descendants(record: PidRecord) -> Iterator[PidRecord]:
    for pid in descendants(record.pid):
        if identity := process_identity(pid):
            yield PidRecord(record.name, pid, identity, record.stop_signal)


def _parents() -> dict[int, int]:
    """The parent of every process."""
    if _HAS_PROC:
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        fields = {pid: _stat_fields(pid) for pid in pids}
        return {pid: int(each[1]) for pid, each in fields.items() if each}
    rows = [row.split() for row in _ps("-ax", "-o", "pid=,ppid=").splitlines()]
    return {int(pid): int(parent) for pid, parent in rows}


def _linux_identity(pid: int) -> str | None:
    fields = _stat_fields(pid)
    if not fields or fields[0] in {"Z", "X"}:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state, ppid, ...); none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    # The second field is the command's name in parentheses; it may hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _ps(*options: str) -> str:
    command = ["ps", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _is_alive(record: PidRecord) -> bool:
    return process_identity(record.pid) == record.identity


def _signal(records: Iterable[PidRecord], number: int) -> None:
    for record in filter(_is_alive, records):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


async def _until_gone(records: Iterable[PidRecord]) -> None:
    while any(map(_is_alive, records)):  # noqa: ASYNC110 - the end of a process that is no child
        await asyncio.sleep(_POLL_INTERVAL)
