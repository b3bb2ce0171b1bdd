import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker.splitting.cleaning import clean
from chunker.splitting.heading_tree import HeadingTree, plain
from tests.unit.chunker.strategies import markdown


def titles(text: str) -> list[tuple[int, str]]:
    return [(heading.level, plain(heading.source)) for heading in HeadingTree(text).headings]


def test_atx_and_setext_headings_are_found() -> None:
    text = "# A\ntext\n## B ##\n   ### C\t#\n\nD\n===\n\nE\n---\n\n####### no\n#no\n    # code\n#"
    assert titles(text) == [(1, "A"), (2, "B"), (3, "C"), (1, "D"), (2, "E"), (1, "")]


@pytest.mark.parametrize(
    "text",
    [
        "```sh\n# a comment\n```",
        "~~~\n# a\n```\n# b\n~~~",
        "````md\n```\n# a\n```\n````",
        "- item\n\n    ```console\n    # a\n    ```",
        "```\n# never closed",
        "---\ntitle: front matter\n---",
        "| a |\n|---|\n| b |",
        "- item\n---",
        "> quote\n---",
        "one\ntwo\n---",
        "a\n\n---",
        "text\n-",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert titles(text) == []


def test_headings_after_a_code_block_count_again() -> None:
    assert titles("```\n# a\n```\n# b") == [(1, "b")]


def test_inline_code_at_the_start_of_a_line_opens_no_block() -> None:
    assert titles("```x``` is code\n# b") == [(1, "b")]


def test_the_path_at_a_place_is_the_headings_in_force_there() -> None:
    text = "intro\n# A\na\n### C\nc\n## B\nb\n# D\n"
    tree = HeadingTree(text)
    assert tree.path(0) == ()
    assert tree.path(text.index("# A")) == ("A",)
    assert tree.path(text.index("c\n")) == ("A", "C")
    assert tree.path(text.index("b\n")) == ("A", "B")
    assert tree.path(len(text)) == ("D",)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("The `BaseModel` class", "The BaseModel class"),
        ("**Bold** and *italic* __init__", "Bold and italic __init__"),
        ("[Guide](https://a.test/x) to ![icon](i.png) [ref][r]", "Guide to icon ref"),
        ("Usage { #usage }", "Usage { #usage }"),
        ("Usage {#usage}", "Usage"),
        ("Usage[\u200b](#usage)", "Usage"),
        ("Usage¶", "Usage"),
        ("<a id='x'></a>vector<int> <span class=y>z</span>", "vector<int> z"),
        (r"a\_b \# c", "a_b # c"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("  \t ", ""),
        ("x" * 5000, "x" * 200),
    ],
)
def test_titles_are_shown_without_markup(source: str, text: str) -> None:
    assert plain(source) == text


@given(markdown.map(clean), st.integers(0, 3000))
def test_headings_stand_where_the_tree_says(text: str, offset: int) -> None:
    tree = HeadingTree(text)
    for heading in tree.headings:
        line = text[heading.start : heading.end]
        assert line
        assert not line[0].isspace()
        assert heading.source.strip() in line
    assert tree.section_start(offset) <= offset
    body = tree.body_start(text, 0, len(text))
    assert 0 <= body <= len(text)
    assert len(tree.path(offset)) <= 6
