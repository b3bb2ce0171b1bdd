"""The crawl of `millstream up --sample`: real documentation pages, and questions about them.

webhooks.py turns the pages into what Firecrawl would send.
"""

import gzip
from importlib import resources
from typing import Any

import msgspec


class SampleQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question and the page that answers it."""

    text: str
    url: str


# The answers are on different sites. Two questions share hardly a word with their page's title.
QUERIES = (
    SampleQuery(
        text="How do I send an email after the response was returned?",
        url="https://fastapi.tiangolo.com/tutorial/background-tasks/",
    ),
    SampleQuery(
        text="Where can I keep a user's password encrypted on disk?",
        url="https://www.electronjs.org/docs/latest/api/safe-storage",
    ),
    SampleQuery(
        text="How do I free the disk space that uv's cache takes?",
        url="https://docs.astral.sh/uv/concepts/cache",
    ),
)


def pages() -> list[dict[str, Any]]:
    """The pages as Firecrawl documents: `url`, `markdown` and `metadata`, in the crawl's order."""
    packed = (resources.files(__package__) / "crawl.jsonl.gz").read_bytes()
    return [msgspec.json.decode(line) for line in gzip.decompress(packed).splitlines()]
