"""Cuts a page by characters, at the best boundaries of its markdown: the rough first stage of
splitting.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from semantic_text_splitter import MarkdownSplitter

from chunker.splitting.heading_tree import HeadingTree

# MarkdownSplitter is quadratic in what it is given (1 MB of short lines 6 s, of CJK 7 s); so it
# gets pieces.
SEGMENT_CHARACTERS = 5000
MIN_OVERLAP_CHARACTERS = 10

_SENTENCE = re.compile(r"\n\s*|[.!?]\s+|[。！？]\s*")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w")


class Span(NamedTuple):
    """`markdown[start:end]`.

    `body` is where text other than leading headings begins (`end`: nowhere).
    """

    start: int
    body: int
    end: int


def rough_spans(markdown: str, tree: HeadingTree, max_characters: int) -> Iterator[Span]:
    """Disjoint spans in order that cover all but whitespace, each within `max_characters`."""
    splitter = MarkdownSplitter(max_characters)
    for start, end in _segments(markdown, tree, max(SEGMENT_CHARACTERS, 4 * max_characters)):
        for offset, text in splitter.chunk_indices(markdown[start:end]):
            first, last = start + offset, start + offset + len(text)
            yield Span(first, tree.body_start(markdown, first, last), last)


def join_bare(markdown: str, spans: Iterable[Span], max_characters: int) -> Iterator[Span]:
    """Join headings that stand alone to what follows and lone marks (```, ---) to what precedes
    them.

    Joined is only what takes at most a third of `max_characters`; the result may be longer than
    that.
    """
    before: Span | None = None
    for span in spans:
        if before is None:
            before = span
        elif before.body == before.end and span.body - before.start <= max_characters // 3:
            before = Span(before.start, span.body, span.end)
        elif span.end - before.end <= max_characters // 3 and not _WORD.search(
            markdown, span.start, span.end
        ):
            before = before._replace(end=span.end)
        else:
            yield before
            before = span
    if before is not None:
        yield before


def divide(markdown: str, span: Span, parts: int) -> Iterator[Span]:
    """Cut a span of two characters or more into about `parts` even ones; its headings stay with the
    first.
    """
    start: int | None = span.start
    body = span.body if span.body - span.start < span.end - span.body else span.start
    # A tenth more than even leaves room for good boundaries, without a small rest.
    capacity = max(1, (span.end - body) * 11 // (10 * parts))
    for offset, text in MarkdownSplitter(capacity).chunk_indices(markdown[body : span.end]):
        first = body + offset
        yield Span(first if start is None else start, first, first + len(text))
        start = None


def overlap_start(markdown: str, start: int, floor: int, fits: Callable[[int], bool]) -> int:
    """Where a text that begins at `start` may begin instead, to repeat the end of what is before
    it.

    Tried are sentence, line and word boundaries from `floor` on, until `fits` takes one; else
    `start`.
    """
    low = floor
    while start - low >= MIN_OVERLAP_CHARACTERS:
        earlier = _boundary(markdown, low, start)
        if fits(earlier):
            return earlier
        low = earlier + max(1, (start - earlier) // 4)
    return start


def _boundary(markdown: str, low: int, high: int) -> int:
    """The first good place to begin in the first half of `markdown[low:high]`.

    `low` if there is none.
    """
    if low == 0 or markdown[low - 1] == "\n":
        return low
    middle = low + (high - low) // 2
    found = _SENTENCE.search(markdown, low, middle) or _SPACE.search(markdown, low, middle)
    return found.end() if found else low


def _segments(markdown: str, tree: HeadingTree, limit: int) -> Iterator[tuple[int, int]]:
    start = 0
    while len(markdown) - start > limit:
        end = _segment_end(markdown, tree, start, start + limit)
        yield start, end
        start = end
    yield start, len(markdown)


def _segment_end(markdown: str, tree: HeadingTree, start: int, limit: int) -> int:
    heading = tree.section_start(limit)
    if heading > start:
        return heading
    for separator in ("\n\n", "\n", " "):
        found = markdown.rfind(separator, (start + limit) // 2, limit)
        if found >= 0:
            return found + len(separator)
    return limit
