import pytest
from tokenizers import Tokenizer

from chunker.splitting.splitter import Splitter
from shared.tei.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(None)


@pytest.fixture(scope="session")
def splitter(tokenizer: Tokenizer) -> Splitter:
    return Splitter(tokenizer)
