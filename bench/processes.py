"""CPU seconds and memory of processes, from /proc of Linux."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage(msgspec.Struct, frozen=True):
    """One process since its start."""

    cpu_s: float  # user and system
    rss_mb: float  # now
    peak_mb: float


def usage(pid: int) -> Usage:
    """The usage of a process. Raises FileNotFoundError if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        rss_mb=int(status["VmRSS"].split()[0]) / 1024,
        peak_mb=int(status["VmHWM"].split()[0]) / 1024,
    )


def usages(pids: Mapping[str, Iterable[int]]) -> dict[str, Usage]:
    """The sums over the processes of each name."""
    return {name: _total([usage(pid) for pid in members]) for name, members in pids.items()}


def _total(members: list[Usage]) -> Usage:
    return Usage(
        cpu_s=sum(member.cpu_s for member in members),
        rss_mb=sum(member.rss_mb for member in members),
        peak_mb=sum(member.peak_mb for member in members),
    )
