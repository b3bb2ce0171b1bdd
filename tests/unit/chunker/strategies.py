"""Markdown as hypothesis makes it: plausible pages with nasty places, and text with no sense at
all.
"""

from hypothesis import strategies as st

NASTY = (
    "\0",
    "\ud800",
    "\udfff",
    "\r\n",
    "\r",
    "\x0b",
    "\x85",
    "\u2028",
    "\u200b",
    "\ufeff",
    "\ufffd",
    "\xa0",
    "\u3000",
    "e\u0301",
    "\u0344",
    "\u0301" * 40,
    "\U0001d165" * 33,
    "\u212a",
    "<\u0338",
    "가나다",
    "漢字仮名交じり文。",
    "👨\u200d👩\u200d👧",
    "[MASK]",
    "[SEP]",
    "data:image/png;base64," + "iVBORw0K" * 20,
    "https://a.test/b?utm_source=x&c=1&gclid=2#d",
    "https://a.test/?utm_a=1&amp;amp;utm_b=2",
    "a" * 300,
    "`" * 5,
    "[" * 9,
    "> > - 1. ",
)
LINES = (
    "# Title",
    "## Usage of `clean`",
    "### Deep ###",
    "Setext\n===",
    "Setext two\n---",
    "---",
    "```python",
    "```",
    "~~~",
    "- item",
    "  - nested item",
    "1. first",
    "> quote",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "",
    " \t ",
    "<div>",
    "#",
    "##",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "def f(x: int) -> int:\n    return x + 1  # comment",
)

words = st.sampled_from(
    ("stream", "consumer", "group", "Redis", "embedding", "don't", "naïve", "x_y", "3.14", "C++")
)
prose = st.lists(words, min_size=1, max_size=120).map(" ".join)
any_text = st.text(st.characters(exclude_categories=()), max_size=300)
blocks = st.one_of(st.sampled_from(LINES), st.sampled_from(NASTY), prose, any_text)
markdown = st.builds(
    lambda parts, separator: separator.join(parts),
    st.lists(blocks, max_size=25),
    st.sampled_from(("\n\n", "\n", " ", "")),
)
