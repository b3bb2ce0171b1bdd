"""Where a page's headings stand, and which of them are in force at a given place.

Reads ATX (`## x`) and setext (underlined) headings line by line; fenced code and front matter have
none.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

MAX_TITLE_CHARACTERS = 200

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+[ \t]*$")
# One `-` under a line of text is more often an empty list item than a heading.
_UNDERLINE = re.compile(r" {0,3}(={2,}|-{2,})[ \t]*$")
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})(.*)$")
_NOT_PARAGRAPH = re.compile(r" {4}|\t|[ ]{0,3}(?:[>|#]|[-*+][ \t]|[-*_=]{3,}|\d{1,9}[.)][ \t])")

_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
# Only tags that stand in headings, since `vector<int>` is text.
_TAG = re.compile(
    r"</?(?:a|abbr|b|br|code|em|i|img|kbd|small|span|strong|sub|sup)(?:[\s/][^<>]*)?>"
)
_ATTRIBUTES = re.compile(r"\{[#:.][^{}]*\}\s*$")
_EMPHASIS = re.compile(r"(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


class Heading(NamedTuple):
    """One heading.

    `end` is exclusive and after an underline; `parent` is an index, -1 at the top.
    """

    start: int
    end: int
    level: int
    source: str
    parent: int


class HeadingTree:
    """The headings of one cleaned page, in order."""

    def __init__(self, markdown: str) -> None:
        self.headings: list[Heading] = []
        open_at: list[int] = []
        for start, end, level, source in _scan(markdown):
            while open_at and self.headings[open_at[-1]].level >= level:
                open_at.pop()
            self.headings.append(Heading(start, end, level, source, open_at[-1] if open_at else -1))
            open_at.append(len(self.headings) - 1)
        self.starts = [heading.start for heading in self.headings]
        self._paths: dict[int, tuple[str, ...]] = {-1: ()}

    def path(self, offset: int) -> tuple[str, ...]:
        """Titles in force at `offset`, outermost first; a heading that starts there is included."""
        return self._path(bisect_right(self.starts, offset) - 1)

    def section_start(self, offset: int) -> int:
        """Where the heading nearest above `offset` starts; 0 before the first one."""
        index = bisect_right(self.starts, offset) - 1
        return self.starts[index] if index >= 0 else 0

    def body_start(self, markdown: str, start: int, end: int) -> int:
        """Where text other than headings begins in `markdown[start:end]`.

        `end` if there is none.
        """
        index = bisect_right(self.starts, start) - 1
        while 0 <= index < len(self.starts) and self.starts[index] == start:
            start = self.headings[index].end
            while start < end and markdown[start].isspace():
                start += 1
            index += 1
        return min(start, end)

    def _path(self, index: int) -> tuple[str, ...]:
        if index not in self._paths:
            heading = self.headings[index]
            title = plain(heading.source)
            self._paths[index] = (*self._path(heading.parent), *([title] if title else []))
        return self._paths[index]


def plain(source: str) -> str:
    """A heading's text as a reader sees it: without markup, on one line, at most 200 characters."""
    text = source[: 5 * MAX_TITLE_CHARACTERS]
    text = _ATTRIBUTES.sub("", _TAG.sub("", _LINK.sub(r"\1", text)))
    text = _ESCAPE.sub(r"\1", _EMPHASIS.sub(r"\2", text).replace("`", ""))
    # Docusaurus and Sphinx end headings with such anchors.
    text = " ".join(text.split()).strip(" \u200b\u00b6")
    return text[:MAX_TITLE_CHARACTERS].rstrip()


def _scan(markdown: str) -> Iterator[tuple[int, int, int, str]]:
    """(start, end, level, source) of every heading."""
    fence = ""
    before, previous = "", ""
    offset = 0
    for line in markdown.split("\n"):
        mark = line.lstrip()[:1]
        if mark in {"`", "~"}:
            fence = _fence_after(line, fence)
        elif not fence and mark == "#" and (match := _ATX.match(line)):
            source = _CLOSING_HASHES.sub("", match[2] or "")
            yield offset + match.start(1), offset + len(line), len(match[1]), source
        elif not fence and mark in {"=", "-"} and _is_setext(before, previous, line):
            start = offset - 1 - len(previous.lstrip())
            yield start, offset + len(line), 1 if mark == "=" else 2, previous
        offset += len(line) + 1
        before, previous = previous, line


def _fence_after(line: str, fence: str) -> str:
    """The fence that is open after `line`; empty for none.

    Lists indent fences, so any indent counts.
    """
    match = _FENCE.match(line)
    if not match:
        return fence
    if not fence:
        return match[1]
    is_closing = match[1].startswith(fence) and not match[2].strip()
    return "" if is_closing else fence


def _is_setext(before: str, previous: str, line: str) -> bool:
    """Only one-line paragraphs count: lines above `---` are more often front matter or a table."""
    is_paragraph = (
        bool(previous.strip()) and not before.strip() and not _NOT_PARAGRAPH.match(previous)
    )
    return is_paragraph and _UNDERLINE.match(line) is not None
