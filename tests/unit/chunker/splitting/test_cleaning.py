import re
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker.splitting.cleaning import MAX_LINE_CHARACTERS, clean
from tests.unit.chunker.pages import sample_pages
from tests.unit.chunker.strategies import any_text, markdown

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@given(markdown | any_text)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned


@given(markdown | any_text)
def test_what_is_cleaned_can_be_stored_and_split(text: str) -> None:
    cleaned = clean(text)
    assert not CONTROL.search(cleaned)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert "\n\n\n" not in cleaned
    assert cleaned == cleaned.strip()
    cleaned.encode("utf-8")


@pytest.mark.parametrize("page", sample_pages()[::10], ids=lambda page: page.title)
def test_real_pages_lose_nothing_but_blank_lines(page: tuple[str, str]) -> None:
    _, text = page
    expected = [line for line in unicodedata.normalize("NFC", text).split("\n") if line.strip()]
    assert [line for line in clean(text).split("\n") if line.strip()] == [
        expected[0].lstrip(),
        *expected[1:-1],
        expected[-1].rstrip(),
    ]


def test_headings_lists_code_and_tables_keep_their_layout() -> None:
    text = (
        "# A\n\n- b\n    - c\n\n```py\ndef f():\n\n\tpass\n```\n\n"
        "| d | e |\n|---|---|\n| 1 | 2 |  \nline"
    )
    assert clean(text) == text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\rc\x0bd\x85e\u2028f", "a\nb\nc\nd\ne\nf"),
        ("a\x00b\x1fc\x7fd\ufeffe", "abcde"),
        ("a\ud800b\udfffc", "a\ufffdb\ufffdc"),
        ("e\u0301 \u212a", "é K"),
        ("a\n\n\n \n\t\n\xa0\n  b", "a\n\n  b"),
        (" \n\n a \n ", "a"),
        ("\x00" * 1000, ""),
        ("![x](data:image/png;base64," + "iVBORw0K" * 999 + ") y", "![x](data:image/png) y"),
        ("data:text/plain,short", "data:text/plain,short"),
    ],
)
def test_what_is_unsafe_or_noise_goes(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("?utm_source=x", ""),
        ("?UTM_Source=x&utm_medium=y&gclid=z", ""),
        ("?a=1&utm_source=x", "?a=1"),
        ("?utm_source=x&a=1", "?a=1"),
        ("?a=1&utm_source=x&b=2&fbclid=y&c=3", "?a=1&b=2&c=3"),
        ("?a=1&amp;utm_source=x&amp;b=2", "?a=1&b=2"),
        ("?utm_source=x#part", "#part"),
        ("?utm_source=x&amp;amp;utm_medium=y", ""),
        ("?q=utm_source", "?q=utm_source"),
        ("?page=2", "?page=2"),
    ],
)
def test_links_lose_their_tracking_parameters(query: str, kept: str) -> None:
    assert clean(f"see [x](https://a.test/b{query}) or <https://a.test/{query}>") == (
        f"see [x](https://a.test/b{kept}) or <https://a.test/{kept}>"
    )


def test_a_tracking_parameter_that_is_written_about_stays() -> None:
    assert clean("append `?utm_source=x` to it") == "append `?utm_source=x` to it"


def test_every_combining_mark_is_capped_at_thirty() -> None:
    marks = [mark for mark in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(mark)]
    for mark in marks:
        run = clean("a" + mark * 40)
        assert sum(1 for character in run if unicodedata.combining(character)) <= 30


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=6), st.sampled_from(["a", "é", "漢"]))
def test_long_lines_are_cut_at_spaces_where_there_are_some(
    lengths: list[int], character: str
) -> None:
    text = " ".join(character * length for length in lengths)
    cleaned = clean(text)
    assert max(map(len, cleaned.split("\n"))) <= MAX_LINE_CHARACTERS
    assert "".join(cleaned.split()) == "".join(text.split())
    if max(lengths) < MAX_LINE_CHARACTERS // 2:
        assert cleaned.split() == text.split()


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0301" * 200_000,
        "a" + "\u0301\U0001d165\u0344" * 70_000,
        "https://" * 200_000,
        "https://a.test/?" + "utm_a=b&" * 200_000,
        "data:a/" * 200_000,
        "![x](data:image/png;base64," + "iVBORw0K" * 200_000 + ")",
        "\n \t" * 500_000,
        "a\x00" * 500_000,
    ],
    ids=["marks", "mixed marks", "schemes", "trackers", "data", "image", "blank lines", "nul"],
)
def test_cleaning_takes_linear_time(text: str) -> None:
    started = time.process_time()
    clean(text)
    assert time.process_time() - started < 3
