"""What makes a document the same as the stored one. Pure; tells unchanged pages."""

import hashlib

import msgspec

from shared.pipeline.messages import Page
from shared.service.settings import ChunkerSettings

# Raise it when cleaning, splitting or prefixes change what is stored for the same text.
PIPELINE_VERSION = 1


def content_hash(url: str, page: Page, markdown: str) -> bytes:
    """sha256 over all that is stored of a document, except crawl_id and indexed_at.

    `markdown` is the cleaned one. The order of metadata's keys does not matter, nor do fields at
    their defaults.
    """
    return hashlib.sha256(msgspec.json.encode([url, page, markdown], order="sorted")).digest()


def fingerprint(settings: ChunkerSettings, tokenizer_hash: str, generation: str) -> bytes:
    """sha256 over how documents are processed, and the `generation` of their target."""
    bounds = (
        settings.max_chunk_tokens,
        settings.chunk_overlap_tokens,
        settings.chunk_prefix_tokens,
        settings.max_chunk_characters,
    )
    return hashlib.sha256(
        msgspec.json.encode([PIPELINE_VERSION, bounds, tokenizer_hash, generation])
    ).digest()
