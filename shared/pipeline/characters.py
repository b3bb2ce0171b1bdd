"""Classes of characters that `re` has no name for."""

import unicodedata
from collections.abc import Iterable


def character_class(characters: Iterable[str]) -> str:
    """A regular expression's class of sorted characters.

    `re` is ten times faster with ranges above plane 0.
    """
    ranges: list[list[str]] = []
    for character in characters:
        if ranges and ord(ranges[-1][1]) + 1 == ord(character):
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "[" + "".join(f"{first}-{last}" for first, last in ranges) + "]"


def marks() -> list[str]:
    """What belongs to the character before it: accents, and the vowels of many scripts.

    All stand below plane 2.
    """
    return [
        mark
        for mark in map(chr, range(0x300, 0x20000))
        if unicodedata.category(mark) in {"Mn", "Mc"}
    ]
