import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker.splitting.counting import TokenCounter
from chunker.splitting.prefix import Prefixes, join_title
from shared.tei.tokenizer import load_tokenizer

COUNTER = TokenCounter(load_tokenizer(None))
LIMIT = 48

titles = st.sampled_from(
    ("", "Guide", "Streams", "x" * 200, "漢字" * 60, "Redis Streams consumer groups " * 6)
)


def test_a_prefix_is_title_and_headings_on_a_line_of_their_own() -> None:
    prefix = Prefixes(COUNTER, "uv docs", LIMIT).of(("Projects", "Lock files"))
    assert prefix.text == "uv docs > Projects > Lock files\n\n"
    assert prefix.tokens == COUNTER.count_one(prefix.text)


@pytest.mark.parametrize("title", ["", "\xad"])
def test_without_title_and_headings_there_is_no_prefix(title: str) -> None:
    assert Prefixes(COUNTER, title, LIMIT).of(()).text == ""


@pytest.mark.parametrize(
    ("title", "path", "parts"),
    [
        ("Guide", ("Guide", "Usage"), ["Guide", "Usage"]),
        ("guide", ("Guide to all", "Usage"), ["Guide to all", "Usage"]),
        ("Guide | FastAPI", ("Guide", "Usage"), ["Guide | FastAPI", "Usage"]),
        ("Home", ("Guide",), ["Home", "Guide"]),
        ("Home", (), ["Home"]),
        ("", ("Guide",), ["Guide"]),
    ],
)
def test_the_title_is_not_said_twice(title: str, path: tuple[str, ...], parts: list[str]) -> None:
    assert join_title(title, path) == parts


def test_of_a_long_path_the_title_and_the_last_heading_stay() -> None:
    middle = "a heading in between that says very much about nothing at all in many words"
    text = (
        Prefixes(COUNTER, "Title", LIMIT).of((middle, middle + " again", middle * 3, "Last")).text
    )
    assert text.startswith("Title > ")
    assert text.endswith(" > Last\n\n")


@given(titles, st.lists(titles.filter(bool), max_size=6).map(tuple), st.integers(0, LIMIT))
def test_no_prefix_has_more_tokens_than_allowed(
    title: str, path: tuple[str, ...], limit: int
) -> None:
    prefix = Prefixes(COUNTER, title, limit).of(path)
    assert prefix.tokens == COUNTER.count_one(prefix.text) <= limit + COUNTER.special_tokens
    assert prefix.text == "" or prefix.text.endswith("\n\n")
