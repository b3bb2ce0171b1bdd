"""What the embedder checks before it takes work."""

import pytest

from embedder.compatibility import ChunkShape, Served, check_compatible
from shared.service.errors import ConfigurationError
from shared.tei.client import TeiInfo

SHAPE = ChunkShape(max_tokens=256, probe_ids=(101, 7, 102))


def served(max_input_length: int = 256, probe_ids: tuple[int, ...] = SHAPE.probe_ids) -> Served:
    info = TeiInfo(
        model_id="model", model_sha=None, max_input_length=max_input_length, max_batch_tokens=16384,
        max_client_batch_size=32, max_concurrent_requests=512, version="1.9.0",
    )  # fmt: skip
    return Served(info=info, dimension=384, probe_ids=probe_ids)


def test_the_same_tokens_and_enough_room_are_fine() -> None:
    check_compatible(served(), SHAPE)


def test_a_model_with_a_shorter_window_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_MAX_CHUNK_TOKENS .* to 128"):
        check_compatible(served(128), SHAPE)


def test_another_tokenizer_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_TOKENIZER"):
        check_compatible(served(probe_ids=(101, 8, 102)), SHAPE)
