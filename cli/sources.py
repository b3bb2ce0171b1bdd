"""Documents to index: read from files, folders, JSONL and standard input."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

TEXT_SUFFIXES = frozenset({".md", ".markdown", ".mdx", ".txt", ".rst"})
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})

_MAX_REQUEST_BYTES = 8 * 1024 * 1024
_MAX_REQUEST_DOCUMENTS = 500


def lines_of(paths: Iterable[str]) -> Iterator[bytes]:
    """The documents of all paths in order, each as one line of JSON; `-` is standard input.

    Raises OSError.
    """
    for path in paths:
        if path == "-":
            yield from _stripped(sys.stdin.buffer)
        else:
            yield from _lines_of_path(Path(path))


def requests_of(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group lines into requests of at most 500 documents and about 8 MiB."""
    request: list[bytes] = []
    size = 0
    for line in lines:
        is_full = size + len(line) > _MAX_REQUEST_BYTES or len(request) == _MAX_REQUEST_DOCUMENTS
        if request and is_full:
            yield request
            request, size = [], 0
        request.append(line)
        size += len(line) + 1
    if request:
        yield request


def _lines_of_path(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.suffix.lower() in TEXT_SUFFIXES | LINES_SUFFIXES:
                yield from _lines_of_path(file)
    elif path.suffix.lower() in LINES_SUFFIXES:
        with path.open("rb") as lines:
            yield from _stripped(lines)
    else:
        yield msgspec.json.encode(_document(path))


def _document(path: Path) -> dict[str, Any]:
    text = path.read_text(errors="replace")
    return {"url": path.resolve().as_uri(), "markdown": text, "title": _title(text) or path.stem}


def _title(markdown: str) -> str:
    """The first heading, if the text begins with one."""
    first = markdown.lstrip().partition("\n")[0]
    return first.lstrip("#").strip() if first.startswith("#") else ""


def _stripped(lines: Iterable[bytes]) -> Iterator[bytes]:
    return (stripped for line in lines if (stripped := line.strip()))
