"""The pages of the benchmarks: 2,039 of real documentation, up to 64 KB (licences: bench/data)."""

import gzip
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from semantic_text_splitter import MarkdownSplitter

from chunker.splitting.cleaning import clean
from chunker.splitting.splitter import Splitter
from shared.tei.tokenizer import load_tokenizer

# With these settings exactly the text of a chunk is embedded: every contestant can do the same.
BARE_CHUNKS = {"WEBHOOK_CHUNK_OVERLAP_TOKENS": "0", "WEBHOOK_CHUNK_PREFIX_TOKENS": "0"}

_FILE = Path(__file__).parent / "data" / "pages.jsonl.gz"
_SEED = 20
_TOKENS = 254  # of a chunk, plus two special tokens

Page = dict[str, Any]  # url, markdown, metadata, as Firecrawl scraped it


class ChunkedPage(msgspec.Struct, frozen=True):
    """The chunks of a page that every contestant embeds and stores."""

    url: str
    chunks: list[str]


def load_pages(count: int | None = None) -> list[Page]:
    """The first `count` pages, in a fixed order that mixes sites, lengths and languages."""
    with gzip.open(_FILE, "rt") as lines:
        pages = [json.loads(line) for line in lines]
    random.Random(_SEED).shuffle(pages)
    return pages[:count]


def chunked(pages: Sequence[Page]) -> list[ChunkedPage]:
    """The pages, split as a pipeline with `BARE_CHUNKS` splits them."""
    splitter = Splitter(load_tokenizer(None), overlap_tokens=0, prefix_tokens=0)
    return [
        ChunkedPage(
            page["url"], [chunk.text for chunk in splitter.split(clean(page["markdown"]), "")]
        )
        for page in pages
    ]


def splitting_cpu_s(pages: Sequence[Page]) -> float:
    """CPU seconds of a splitter that counts tokens all along, as the peers use it."""
    splitter = MarkdownSplitter.from_huggingface_tokenizer(load_tokenizer(None), _TOKENS)
    started = time.process_time()
    for page in pages:
        splitter.chunks(page["markdown"])
    return time.process_time() - started


def with_changed_paragraphs(pages: Sequence[Page], share: float) -> list[Page]:
    """The pages with one more sentence in this share of their paragraphs, by a fixed seed."""
    draw = random.Random(_SEED)

    def changed(paragraph: str) -> str:
        is_prose = paragraph[:1].isalpha() and "\n" not in paragraph
        return f"{paragraph} This was changed." if is_prose and draw.random() < share else paragraph

    return [
        {**page, "markdown": "\n\n".join(map(changed, page["markdown"].split("\n\n")))}
        for page in pages
    ]
