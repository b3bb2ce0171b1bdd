import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from local.tei.contract import ErrorType, Limits, Side, TeiError
from local.tei.tokenization import describe, encode

LIMITS = Limits(max_input_length=6)  # and so at most 1,500 characters
WORDS = [f"wört{number}" for number in range(30)]


def word_tokenizer() -> Tokenizer:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2} | {
        word: 3 + index for index, word in enumerate(WORDS)
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer


words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)
sides: st.SearchStrategy[Side] = st.sampled_from(["Left", "Right"])


@given(st.lists(words, min_size=1, max_size=5), sides)
def test_truncation_gives_what_the_tokenizer_itself_would_cut(
    texts: list[list[str]], side: Side
) -> None:
    cutting = word_tokenizer()
    cutting.enable_truncation(LIMITS.max_input_length, direction=side.lower())
    joined = [" ".join(text) for text in texts]
    assert encode(word_tokenizer(), joined, LIMITS, side) == [
        cutting.encode(text).ids for text in joined
    ]


def test_without_truncation_a_long_text_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        TeiError, match=r"`inputs` must have less than 6 tokens\. Given: 7"
    ) as caught:
        encode(word_tokenizer(), ["wört1", " ".join(WORDS[:5])], LIMITS, None)
    assert caught.value.error_type is ErrorType.VALIDATION


def test_a_text_that_just_fits_is_accepted_without_truncation() -> None:
    assert encode(word_tokenizer(), [" ".join(WORDS[:4])], LIMITS, None) == [[1, 3, 4, 5, 6, 2]]


def test_without_truncation_too_many_characters_are_refused_before_tokenising() -> None:
    with pytest.raises(
        TeiError, match=r"`inputs` must have less than 1500 characters\. Given: 1501"
    ):
        encode(word_tokenizer(), ["x" * 1501], LIMITS, None)


def test_with_truncation_too_many_characters_are_cut() -> None:
    assert encode(word_tokenizer(), ["x" * 1501], LIMITS, "Right") == [[1, 0, 2]]


@pytest.mark.parametrize("truncation", ["Right", None])
def test_one_empty_text_fails_the_request(truncation: Side | None) -> None:
    with pytest.raises(TeiError, match="`inputs` cannot be empty") as caught:
        encode(word_tokenizer(), ["wört1", ""], LIMITS, truncation)
    assert caught.value.error_type is ErrorType.EMPTY


@given(words)
def test_offsets_are_characters_of_the_text(text: list[str]) -> None:
    joined = "  ".join(text)
    (tokens,) = describe(word_tokenizer(), [joined], LIMITS, special=True)
    ordinary = [token for token in tokens if not token.special]
    assert [joined[token.start : token.stop] for token in ordinary] == text
    assert [token.text for token in ordinary] == text
    assert [(token.text, token.start, token.stop) for token in (tokens[0], tokens[-1])] == [
        ("[CLS]", None, None),
        ("[SEP]", None, None),
    ]


def test_special_tokens_can_be_left_out() -> None:
    (tokens,) = describe(word_tokenizer(), ["wört1"], LIMITS, special=False)
    assert [token.id for token in tokens] == [4]


def test_describing_never_truncates() -> None:
    (tokens,) = describe(word_tokenizer(), [" ".join(WORDS)], LIMITS, special=True)
    assert len(tokens) == len(WORDS) + 2
