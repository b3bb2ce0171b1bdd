"""A collection names tokenizers below one directory only."""

import pytest

from shared.jobs.targets import Target, tokenizer_path
from shared.service.errors import ConfigurationError
from shared.service.settings import ChunkerSettings

CHUNKER = ChunkerSettings(tokenizer="/own/tokenizer.json", tokenizer_directory="/models/")


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("bge/tokenizer.json", "/models/bge/tokenizer.json"),
        ("/models/bge.json", "/models/bge.json"),
        ("/own/tokenizer.json", "/own/tokenizer.json"),  # that of the services
    ],
)
def test_a_tokenizer_below_the_directory_is_found(named: str, path: str) -> None:
    assert tokenizer_path(named, CHUNKER) == path
    target = Target(target="t_1", collection="t", generation="g", tokenizer=named)
    assert target.chunking(CHUNKER).tokenizer == path


@pytest.mark.parametrize(
    "named",
    ["/dev/zero", "../own/tokenizer.json", "/models/../dev/zero", "/modelsevil", "a/../../b"],
)
def test_a_tokenizer_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_TOKENIZER_DIRECTORY, which is /models"):
        tokenizer_path(named, CHUNKER)
    with pytest.raises(ConfigurationError, match="set WEBHOOK_TOKENIZER_DIRECTORY"):
        tokenizer_path(named, ChunkerSettings())
