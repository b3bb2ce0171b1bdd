import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker.splitting.cleaning import clean
from chunker.splitting.heading_tree import HeadingTree
from chunker.splitting.spans import Span, divide, join_bare, overlap_start, rough_spans
from tests.unit.chunker.strategies import markdown


def span_of(text: str, part: str, body: str | None = None) -> Span:
    start = text.index(part)
    return Span(start, text.index(body) if body else start, start + len(part))


def joined(text: str, *spans: Span, max_characters: int = 300) -> list[str]:
    return [text[span.start : span.end] for span in join_bare(text, spans, max_characters)]


@given(markdown.map(clean), st.integers(20, 2000))
def test_rough_spans_are_disjoint_short_and_leave_out_only_whitespace(
    text: str, max_characters: int
) -> None:
    end = 0
    for span in rough_spans(text, HeadingTree(text), max_characters):
        assert not text[end : span.start].strip()
        assert span.start <= span.body <= span.end <= span.start + max_characters
        end = span.end
    assert not text[end:].strip()


@given(markdown.map(clean).filter(lambda text: len(text) > 1), st.integers(2, 9))
def test_dividing_makes_shorter_spans_and_leaves_out_only_whitespace(text: str, parts: int) -> None:
    whole = Span(0, HeadingTree(text).body_start(text, 0, len(text)), len(text))
    end = 0
    for span in divide(text, whole, parts):
        assert not text[end : span.start].strip()
        assert span.end - span.start < len(text)
        end = span.end
    assert not text[end:].strip()


def test_a_heading_alone_joins_what_follows() -> None:
    text = "## A\n\n### B\n\ntext"
    spans = Span(0, 4, 4), Span(6, 11, 11), span_of(text, "text")
    assert joined(text, *spans) == [text]
    assert joined(text, *spans, max_characters=24) == ["## A", "### B\n\ntext"]


@pytest.mark.parametrize("mark", ["---", "```", "|---|---|", "***"])
def test_marks_alone_join_what_precedes(mark: str) -> None:
    text = f"before\n\n{mark}\n\nafter"
    spans = [span_of(text, part) for part in ("before", mark, "after")]
    assert joined(text, *spans) == [f"before\n\n{mark}", "after"]


def test_long_marks_and_marks_at_the_start_stay_alone() -> None:
    text = f"---\n\nafter\n\n{'-' * 200}"
    spans = [span_of(text, part) for part in ("---", "after", "-" * 200)]
    assert joined(text, *spans) == ["---", "after", "-" * 200]


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("No full stop here to begin at|", "No full stop here to begin at"),
        (
            "First words. Then others that come after it|",
            "First words. Then others that come after it",
        ),
        (
            "x" * 40 + ". Then others that come after it, up to here|",
            "Then others that come after it, up to here",
        ),
        ("漢" * 30 + "。" + "字" * 40 + "|", "字" * 40),
        ("short|", ""),
    ],
)
def test_an_overlap_begins_at_the_best_place_that_fits(text: str, repeated: str) -> None:
    start = text.index("|")
    begin = overlap_start(text, start, 0, lambda earlier: start - earlier <= 45)
    assert text[begin:start] == repeated


def test_nothing_is_repeated_if_nothing_fits() -> None:
    assert overlap_start("some words before the start", 27, 0, lambda _: False) == 27
