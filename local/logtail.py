"""Follows a log file that a child process writes, and hands its lines to a callback."""

import asyncio
from collections.abc import Callable
from pathlib import Path

_POLL_INTERVAL = 0.1  # seconds; people read it
_MAX_LINE_BYTES = 64 * 1024  # a longer line is handed on in pieces


class LogTail:
    """Lines appended to `path` from now on, without their newline."""

    def __init__(self, path: Path, on_line: Callable[[str], None]) -> None:
        self._path = path
        self._on_line = on_line
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    async def follow(self) -> None:
        """Read until cancelled; call `finish` afterwards for what came last."""
        while True:
            self._read()
            await asyncio.sleep(_POLL_INTERVAL)

    def finish(self) -> None:
        """Hand on what is there, an unfinished last line too."""
        self._read()
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._emit(line)

    def _emit(self, line: bytes) -> None:
        self._on_line(line.decode(errors="replace"))
