"""What the services have logged since a moment: it outlives processes that are killed, which their metrics do not."""

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
        """The log lines of all processes of these services; what is not JSON (a traceback at the start) is left out."""
        for service in services:
            for path in sorted(self._directory.glob(f"{service}-*.log")):
                with path.open("rb") as file:
                    file.seek(self._starts.get(path, 0))
                    yield from filter(None, map(_event, file))


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return event if isinstance(event, dict) else None
