"""The second stage of splitting: one page's spans are counted, cut again where too long, and made
chunks.
"""

from collections.abc import Iterable
from typing import NamedTuple

from chunker.splitting.counting import TokenCounter
from chunker.splitting.heading_tree import HeadingTree
from chunker.splitting.prefix import Prefix, Prefixes
from chunker.splitting.spans import Span, divide, overlap_start
from shared.pipeline.messages import Chunk

CHARACTERS_PER_TOKEN = 5  # more than prose has, so that an overlap is tried with a little too much


class Limits(NamedTuple):
    """What a chunk may have: tokens of its prefix, tokens of its own text, of these repeated ones,
    characters.
    """

    prefix_tokens: int
    own_tokens: int
    overlap_tokens: int
    characters: int

    @property
    def fresh_tokens(self) -> int:
        """What of its own text is left beside a full overlap."""
        return self.own_tokens - self.overlap_tokens


class Fitted(NamedTuple):
    """A span that fits, and the tokens of its prefix and text together."""

    span: Span
    tokens: int


class PageFitter:
    """Fits the spans of one page.

    Every count is of a whole text as TEI sees it, so none is an estimate.
    """

    def __init__(self, markdown: str, title: str, counter: TokenCounter, limits: Limits) -> None:
        self._markdown = markdown
        self.tree = HeadingTree(markdown)
        self._prefixes = Prefixes(counter, title, limits.prefix_tokens)
        self._counter = counter
        self._limits = limits

    def fit(self, spans: Iterable[Span]) -> list[Fitted]:
        """The spans in order; those that are too long cut evenly, to leave room for the overlap."""
        fitted: list[Fitted] = []
        pending = list(spans)
        while pending:
            counts = self._counter.count(
                [self._prefix(span.start).text + self._text(span) for span in pending]
            )
            longer: list[Span] = []
            for span, tokens in zip(pending, counts, strict=True):
                parts = self._parts(span, tokens)
                if parts == 1:
                    fitted.append(Fitted(span, tokens))
                else:
                    longer.extend(divide(self._markdown, span, parts))
            pending = longer
        return sorted(fitted)

    def extend(self, chunks: list[Chunk], fitted: Iterable[Fitted]) -> None:
        """Add a chunk for each span, with its overlap; one that the next repeats entirely is taken
        back.
        """
        for each in fitted:
            floor = self.tree.section_start(each.span.start)
            chunk = self._chunk(each, max(floor, chunks[-1].start) if chunks else floor)
            if chunks and chunk.start <= chunks[-1].start:
                chunks.pop()
            chunks.append(chunk)

    def _parts(self, span: Span, tokens: int) -> int:
        """Into how many pieces a span must be cut; 1 if it fits. A single character always fits."""
        own = tokens - self._prefix(span.start).tokens
        length = span.end - span.start
        if (own <= self._limits.own_tokens and length <= self._limits.characters) or length == 1:
            return 1
        return max(2, -(-own // self._limits.fresh_tokens), -(-length // self._limits.characters))

    def _chunk(self, fitted: Fitted, floor: int) -> Chunk:
        span, tokens = fitted
        prefix = self._prefix(span.start)
        start = self._overlap_start(fitted, prefix, floor)
        if start < span.start:
            tokens = self._counter.count_one(prefix.text + self._markdown[start : span.end])
            # Some tokenizers join what was counted apart.
            if tokens - prefix.tokens > self._limits.own_tokens:
                start, tokens = span.start, fitted.tokens
        return Chunk(
            text=self._markdown[start : span.end],
            prefix=prefix.text,
            headings=self.tree.path(span.start),
            start=start,
            end=span.end,
            tokens=tokens,
        )

    def _overlap_start(self, fitted: Fitted, prefix: Prefix, floor: int) -> int:
        span = fitted.span
        room = min(
            self._limits.overlap_tokens, self._limits.own_tokens + prefix.tokens - fitted.tokens
        )
        limit = room + self._counter.special_tokens
        floor = max(
            floor, span.start - CHARACTERS_PER_TOKEN * room, span.end - self._limits.characters
        )

        def fits(start: int) -> bool:
            return self._counter.count_one(self._markdown[start : span.start]) <= limit

        return overlap_start(self._markdown, span.start, floor, fits)

    def _prefix(self, offset: int) -> Prefix:
        return self._prefixes.of(self.tree.path(offset))

    def _text(self, span: Span) -> str:
        return self._markdown[span.start : span.end]
