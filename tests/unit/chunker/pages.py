"""Real pages of four projects' documentation, in six languages."""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parents[2] / "data" / "crawl" / "pages.jsonl.gz"


class SamplePage(NamedTuple):
    title: str
    markdown: str


def sample_pages() -> list[SamplePage]:
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    return [
        SamplePage(document["metadata"]["title"], document["markdown"]) for document in documents
    ]
