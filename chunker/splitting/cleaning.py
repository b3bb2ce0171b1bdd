"""Makes a page's markdown safe and lean, and keeps its structure: headings, lists, code, tables.

Pure, and linear in the length of the text: it runs before the splitter in the same worker pool.
"""

import re
import unicodedata

from shared.pipeline.characters import character_class

MAX_MARKS = 30
MAX_LINE_CHARACTERS = 50_000

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINE_BREAK = re.compile(r"[\r\x0b\x0c\x85\u2028\u2029]\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]+")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_DATA_URI = re.compile(r"(data:[\w.+-]{1,64}/[\w.+-]{1,64})[;,][^\s()<>\[\]\"']{64,}")
_URL = re.compile(r"https?://[^\s()<>\[\]\"']+")
_TRACKER = (
    r"(?i:(?:utm|mc)_\w{1,40}|gclid|gclsrc|gbraid|wbraid|dclid|fbclid|msclkid|ysclid|yclid"
    r"|twclid|ttclid|igshid|srsltid"
    r"|mkt_tok|_gl|_ga|_hsenc|_hsmi|__hs\w{1,10}|hsCtaTracking)=[^&#]*"
)
_TRACKERS = re.compile(rf"([?&])(?:amp;)*{_TRACKER}(?:&(?:amp;)*{_TRACKER})*(&(?:amp;)*)?")


def clean(markdown: str) -> str:
    """Return `markdown` as it is stored and split.

    Takes any str, never raises; `clean(clean(x)) == clean(x)`.

    Text is NFC with at most 30 combining marks in a row and `\\n` as the only line break; of the
    control characters only tabs stay, lone surrogates become U+FFFD. Blank lines are folded to one,
    data URIs lose their data, links their tracking parameters, and no line is longer than 50,000
    characters.
    """
    text = _SURROGATE.sub("\ufffd", markdown)
    text = _CONTROL.sub("", _LINE_BREAK.sub("\n", text))
    text = _normalize(text)
    text = _DATA_URI.sub(r"\1", text)
    text = _URL.sub(_without_trackers, text)
    text = _cut_lines(text)
    return _BLANK_LINES.sub("\n\n", text).strip()


# Those that NFC reorders. All stand below plane 2.
_MARKS = tuple(mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.combining(mark))
_MARK_SET = frozenset(_MARKS)
_MARK = character_class(_MARKS)
_EXCESS_MARKS = re.compile(rf"{_MARK}{_MARK}{{{MAX_MARKS},}}")


def _normalize(text: str) -> str:
    if text.isascii():
        return text
    # NFC is quadratic in a run of marks (200,000: 22 s). A few marks are decomposed to two by it,
    # hence again.
    return _cap_marks(unicodedata.normalize("NFC", _cap_marks(text)))


def _cap_marks(text: str) -> str:
    if _MARK_SET.isdisjoint(text):
        return text
    return _EXCESS_MARKS.sub(lambda run: run[0][:MAX_MARKS], text)


def _without_trackers(url: re.Match[str]) -> str:
    return _TRACKERS.sub(_kept_separator, url[0]) if "=" in url[0] else url[0]


def _kept_separator(run: re.Match[str]) -> str:
    return run[1] if run[2] else ""


def _cut_lines(text: str) -> str:
    if len(text) <= MAX_LINE_CHARACTERS:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _cut_line(line))


def _cut_line(line: str) -> list[str]:
    pieces = []
    start = 0
    while len(line) - start > MAX_LINE_CHARACTERS:
        end = start + MAX_LINE_CHARACTERS
        space = line.rfind(" ", start + MAX_LINE_CHARACTERS // 2, end)
        pieces.append(line[start : space if space >= 0 else end])
        start = space + 1 if space >= 0 else end
    pieces.append(line[start:])
    return pieces
