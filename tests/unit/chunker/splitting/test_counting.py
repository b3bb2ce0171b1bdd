from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel

from chunker.splitting.cleaning import clean
from chunker.splitting.counting import TokenCounter
from shared.tei.tokenizer import load_tokenizer
from tests.unit.chunker.pages import sample_pages
from tests.unit.chunker.strategies import markdown

TOKENIZER = load_tokenizer(None)
COUNTER = TokenCounter(TOKENIZER)


def encoded(texts: list[str], tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    return [len(encoding) for encoding in tokenizer.encode_batch(texts)]


@given(st.lists(markdown.map(clean), max_size=5))
def test_counts_are_those_of_the_tokenizer(texts: list[str]) -> None:
    assert COUNTER.count(texts) == encoded(texts)


@given(
    st.text(
        st.sampled_from("ab[]MASKSEP漢字かな가\u0301é'_-. \n\u3000\U00020000"), max_size=80
    ).map(clean)
)
def test_counts_are_right_where_scripts_punctuation_and_special_tokens_meet(text: str) -> None:
    assert COUNTER.count_one(text) == encoded([text])[0]


def test_counts_of_real_pages_are_those_of_the_tokenizer() -> None:
    texts = [clean(page.markdown) for page in sample_pages()]
    assert TokenCounter(TOKENIZER).count(texts) == encoded(texts)


def test_the_table_of_words_is_bounded() -> None:
    counter = TokenCounter(TOKENIZER, max_known=50)
    for number in range(100):
        counter.count([f"w{number}x{digit} {'long' * 50}" for digit in range(10)])
        assert len(counter._known) <= 50 + 10
        assert counter.count_one("stream again") == encoded(["stream again"])[0]


def test_threads_that_count_together_do_not_disturb_each_other() -> None:
    counter = TokenCounter(TOKENIZER, max_known=200)
    texts = [clean(page.markdown) for page in sample_pages()[:60]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(counter.count_one, texts)) == encoded(texts)


def test_a_tokenizer_that_sees_whitespace_encodes_each_text_whole() -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "Ġa": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    texts = ["a a a", "a  a", ""]
    assert TokenCounter(tokenizer).count(texts) == encoded(texts, tokenizer)
    assert not TokenCounter(tokenizer)._is_by_word


@pytest.mark.parametrize(
    ("added", "text"),
    [
        (AddedToken("[two words]", normalized=False), "[two words]"),
        (AddedToken("[x]", normalized=True), "[X]"),
        (AddedToken("[x]", normalized=False, single_word=True), "a[x]"),
        (AddedToken("x-y", normalized=False), "x-y"),
    ],
)
def test_added_tokens_that_reach_beyond_a_piece_forbid_counting_by_word(
    added: AddedToken, text: str
) -> None:
    tokenizer = load_tokenizer(None)
    tokenizer.add_tokens([added])
    assert TokenCounter(tokenizer).count([text]) == encoded([text], tokenizer)
