"""What the services have logged since a moment. Logs, unlike metrics, outlive killed processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


class Logs:
    """The log files of one pipeline, from where they ended when this was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._starts = {path: path.stat().st_size for path in directory.glob("*.log")}

    def events(self, *services: str) -> Iterator[dict[str, Any]]:
        """The log lines of these services that are JSON; tracebacks at the start are left out."""
        for service in services:
            for path in sorted(self._directory.glob(f"{service}-*.log")):
                yield from filter(None, map(_event, self._lines(path)))

    def last_words(self, pid: int) -> str:
        """What a process logged last, and what it or its interpreter wrote after that."""
        words: list[str] = []
        is_its = False
        for line in (
            line for path in sorted(self._directory.glob("*.log")) for line in self._lines(path)
        ):
            if event := _event(line):
                is_its = f":{pid}:" in str(event.get("instance"))
                words = [] if is_its else words
            words += [line.decode(errors="replace")] if is_its else []
        return "".join(words)

    def _lines(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(self._starts.get(path, 0))
            yield from file


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return event if isinstance(event, dict) else None
