import pytest
from tokenizers import Tokenizer

from chunker.splitting import Splitter
from shared.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(None)


@pytest.fixture(scope="session")
def splitter(tokenizer: Tokenizer) -> Splitter:
    return Splitter(tokenizer)
