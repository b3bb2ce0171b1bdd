"""How each target's documents are split: by its settings, or by the chunker's where it has none."""

import asyncio
import hashlib

import msgspec

from chunker.fingerprint import fingerprint
from chunker.splitting.splitter import Splitter
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import ChunkerSettings
from shared.tei.tokenizer import load_tokenizer


class TargetSplitter(msgspec.Struct, frozen=True):
    """A splitter with the settings that it was made of."""

    settings: ChunkerSettings
    tokenizer_hash: str  # of its JSON: half a megabyte, too much to hash for every batch
    splitter: Splitter

    def fingerprint(self, target: Target) -> bytes:
        """Identify documents that were split by this splitter for this generation of a target."""
        return fingerprint(self.settings, self.tokenizer_hash, target.generation)


class TargetSplitters:
    """Makes splitters when they are needed first, and keeps them."""

    def __init__(self, default: ChunkerSettings) -> None:
        """Raise ConfigurationError for settings that leave no room for text."""
        self._default = default
        self._splitters = {default: _make(default)}

    async def of(self, target: Target) -> TargetSplitter:
        """Return the splitter of a target.

        Raises DependencyError if its settings leave no room for text, or its tokenizer is not
        allowed or not readable.
        """
        try:
            settings = target.chunking(self._default)
            if settings not in self._splitters:
                self._splitters[settings] = await asyncio.to_thread(_make, settings)
        except ConfigurationError as error:  # a person must act; no document is at fault
            raise DependencyError("splitter", str(error)) from error
        return self._splitters[settings]


def _make(settings: ChunkerSettings) -> TargetSplitter:
    tokenizer = load_tokenizer(settings.tokenizer)
    splitter = Splitter(
        tokenizer,
        max_tokens=settings.max_chunk_tokens,
        overlap_tokens=settings.chunk_overlap_tokens,
        prefix_tokens=settings.chunk_prefix_tokens,
        max_characters=settings.max_chunk_characters,
        max_chunks=settings.max_document_chunks,
    )
    tokenizer_hash = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    return TargetSplitter(settings, tokenizer_hash, splitter)
