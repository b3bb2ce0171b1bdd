"""What `millstream search` shows of a hit."""

import pytest

from cli.commands.search import excerpt, show_results
from cli.output import console
from indexer.keyword import KeywordEncoder, KeywordParameters

ENCODER = KeywordEncoder(KeywordParameters())


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("foxes", "A\tfox\njumped over [bold]the[/bold] <b>fox</b>.", ["fox", "fox"]),
        ("依存性注入", "🙂🙂 これは依存性注入です\n依存性注入", ["依存性注入", "依存性注入"]),
        (
            "fox",
            "river " * 100 + "fox " + "boat " * 100 + "fox",
            ["fox"],
        ),  # the last one is too far away
        ("river", "no word of it", []),
    ],
)
def test_the_words_of_the_query_are_marked_in_the_excerpt(
    query: str, text: str, marked: list[str]
) -> None:
    shown = excerpt(text, ENCODER.highlight(text, ENCODER.encode_query(query)))
    assert [shown.plain[span.start : span.end] for span in shown.spans] == marked
    assert "\n" not in shown.plain


def test_control_characters_of_a_page_are_not_printed() -> None:
    hit = {
        "title": "\x1b]0;mine\x07 [bold]Title[/bold]",
        "url": "https://example.com/\x9b31m",
        "score": 1.0,
        "headings": ["\x1b[2J"],
        "text": "a \x1b[31mfox\r\b",
        "highlights": [(7, 10)],
    }
    with console().capture() as capture:
        show_results({"results": [hit], "total": 1, "took_ms": 1.0, "degraded": True})
    printed = capture.get()
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert "[bold]Title[/bold]" in printed
    assert "1 hits in 1 ms, degraded" in printed
