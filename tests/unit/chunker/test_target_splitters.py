"""Each target's documents are split by its own settings, and by the chunker's where it has none."""

import pytest

from chunker.target_splitters import TargetSplitters
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import ChunkerSettings

TEXT = "The badger digs a long way down. " * 60


def target(generation: str = "g", **own: int) -> Target:
    return Target(target="docs_1", collection="docs", generation=generation, **own)  # type: ignore[arg-type]


async def test_a_target_with_settings_of_its_own_gets_its_own_chunks_and_fingerprint() -> None:
    splitters = TargetSplitters(ChunkerSettings())
    usual, short = await splitters.of(target()), await splitters.of(target(max_chunk_tokens=128))
    assert max(chunk.tokens for chunk in short.splitter.split(TEXT, "")) <= 128
    assert len(short.splitter.split(TEXT, "")) > len(usual.splitter.split(TEXT, ""))
    assert (
        len(
            {
                usual.fingerprint(target()),
                usual.fingerprint(target("h")),
                short.fingerprint(target()),
            }
        )
        == 3
    )


async def test_targets_with_the_same_settings_share_what_was_made_for_them() -> None:
    splitters = TargetSplitters(ChunkerSettings(max_chunk_tokens=128))
    assert await splitters.of(target(max_chunk_tokens=128)) is await splitters.of(target("h"))


async def test_target_settings_without_room_wait_and_such_chunker_settings_stop_it() -> None:
    with pytest.raises(DependencyError, match="WEBHOOK_CHUNK_OVERLAP_TOKENS"):
        await TargetSplitters(ChunkerSettings()).of(
            target(max_chunk_tokens=64, chunk_overlap_tokens=60)
        )
    with pytest.raises(ConfigurationError):
        TargetSplitters(ChunkerSettings(max_chunk_tokens=64, chunk_overlap_tokens=60))
