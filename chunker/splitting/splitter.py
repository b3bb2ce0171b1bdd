"""Splits a cleaned page into chunks that fit the embedding model, each with its headings and place.

Two stages: by characters at the markdown's own boundaries (fast), then tokens are counted and only
what is too long is cut again. What stands between chunks of one section is repeated in the later
one, where there is room.
"""

from itertools import islice

from tokenizers import Tokenizer

from chunker.splitting.cleaning import clean
from chunker.splitting.counting import TokenCounter
from chunker.splitting.fitting import Limits, PageFitter
from chunker.splitting.heading_tree import MAX_TITLE_CHARACTERS
from chunker.splitting.spans import join_bare, rough_spans
from shared.pipeline.messages import Chunk
from shared.service.errors import ConfigurationError, RejectedError

MIN_TOKENS = 64
# English prose has 4.2 characters per token, code 2.5; what this makes too long is cut again.
CHARACTERS_PER_TOKEN = 4
# Spans in progress at once: words are still known when they are counted again, too long pages end
# early.
GROUP = 256


class Splitter:
    """Built once per process.

    `split` is deterministic, thread-safe and blocks for the CPU time it takes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int = 256,
        overlap_tokens: int = 50,
        prefix_tokens: int = 48,
        max_characters: int = 4000,
        max_chunks: int = 10_000,
    ) -> None:
        """`max_tokens` bounds all that TEI sees of a chunk, `overlap_tokens` what of it repeats the
        one before, `prefix_tokens` what title and headings may take.

        Raises ConfigurationError for bounds that leave no room for text.
        """
        self._counter = TokenCounter(tokenizer)
        # 48 of the default 256; own text gets 206.
        prefix_tokens = min(prefix_tokens, max_tokens * 3 // 16)
        own_tokens = max_tokens - self._counter.special_tokens - prefix_tokens
        self._limits = Limits(prefix_tokens, own_tokens, overlap_tokens, max_characters)
        self._max_chunks = max_chunks
        _check(max_tokens, self._limits)

    def split(self, markdown: str, title: str) -> tuple[Chunk, ...]:
        """Split `markdown`, as `clean` returned it, into chunks in order; empty for blank text.

        `markdown[chunk.start:chunk.end] == chunk.text`, and the chunks cover all of it but
        whitespace. Raises RejectedError ("too_many_chunks").
        """
        page = PageFitter(markdown, _line(title), self._counter, self._limits)
        capacity = min(self._limits.characters, self._limits.fresh_tokens * CHARACTERS_PER_TOKEN)
        spans = join_bare(markdown, rough_spans(markdown, page.tree, capacity), capacity)
        chunks: list[Chunk] = []
        while group := list(islice(spans, GROUP)):
            page.extend(chunks, page.fit(group))
            if len(chunks) > self._max_chunks:
                raise RejectedError(
                    "too_many_chunks", f"the document has more than {self._max_chunks} chunks"
                )
        return tuple(chunks)


def _line(title: str) -> str:
    return " ".join(clean(title[: 5 * MAX_TITLE_CHARACTERS]).split())[
        :MAX_TITLE_CHARACTERS
    ].rstrip()


def _check(max_tokens: int, limits: Limits) -> None:
    if max_tokens < MIN_TOKENS:
        raise ConfigurationError(
            f"WEBHOOK_MAX_CHUNK_TOKENS is {max_tokens}: set at least {MIN_TOKENS}"
        )
    if not 0 <= limits.overlap_tokens <= limits.own_tokens // 2:
        raise ConfigurationError(
            f"WEBHOOK_CHUNK_OVERLAP_TOKENS is {limits.overlap_tokens}: set 0 to "
            f"{limits.own_tokens // 2}, "
            "half of what a chunk's own text may have"
        )
    if limits.prefix_tokens < 0:
        raise ConfigurationError(
            f"WEBHOOK_CHUNK_PREFIX_TOKENS is {limits.prefix_tokens}: set 0 or more"
        )
    if limits.characters < limits.own_tokens:
        raise ConfigurationError(
            f"WEBHOOK_MAX_CHUNK_CHARACTERS is {limits.characters}: set at least {limits.own_tokens}"
        )
