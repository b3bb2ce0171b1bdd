"""How the documents of each target are split: by the chunker's settings, or by what a target has of its own."""

import asyncio
import hashlib

import msgspec

from chunker.fingerprint import fingerprint
from chunker.splitting.splitter import Splitter
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import ChunkerSettings
from shared.tei.tokenizer import load_tokenizer


class Recipe(msgspec.Struct, frozen=True):
    """One way to split."""

    settings: ChunkerSettings
    tokenizer_hash: str  # of its JSON: half a megabyte, too much to hash for every batch
    splitter: Splitter

    def fingerprint(self, target: Target) -> bytes:
        """What tells documents of this target that were split so from all others."""
        return fingerprint(self.settings, self.tokenizer_hash, target.generation)


class Recipes:
    """Makes recipes as they are needed, and keeps them."""

    def __init__(self, default: ChunkerSettings) -> None:
        """Raises ConfigurationError for settings that leave no room for text."""
        self._default = default
        self._recipes = {default: _make(default)}

    async def of(self, target: Target) -> Recipe:
        """The recipe of a target. Raises DependencyError for settings of its own that do not work."""
        settings = target.chunking(self._default)
        if settings not in self._recipes:
            try:
                self._recipes[settings] = await asyncio.to_thread(_make, settings)
            except ConfigurationError as error:  # a person must act; no document is at fault
                raise DependencyError("splitter", str(error)) from error
        return self._recipes[settings]


def _make(settings: ChunkerSettings) -> Recipe:
    tokenizer = load_tokenizer(settings.tokenizer)
    splitter = Splitter(
        tokenizer,
        max_tokens=settings.max_chunk_tokens,
        overlap_tokens=settings.chunk_overlap_tokens,
        prefix_tokens=settings.chunk_prefix_tokens,
        max_characters=settings.max_chunk_characters,
        max_chunks=settings.max_document_chunks,
    )
    return Recipe(settings, hashlib.sha256(tokenizer.to_str().encode()).hexdigest(), splitter)
