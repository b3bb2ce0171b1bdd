"""The line before a chunk's own text that says where it stands: page title and heading path.

People search with words that stand only in titles, so the models see this line with every chunk.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chunker.splitting.counting import TokenCounter

MARK = " > "
SEPARATOR = "\n\n"


class Prefix(NamedTuple):
    """`text` ends with the separator, or is empty.

    `tokens` counts it alone, special tokens included.
    """

    text: str
    tokens: int


class Prefixes:
    """The prefixes of one document, each built once."""

    def __init__(self, counter: TokenCounter, title: str, max_tokens: int) -> None:
        self._counter = counter
        self._title = title
        self._limit = max_tokens + counter.special_tokens
        self._built: dict[tuple[str, ...], Prefix] = {}

    def of(self, path: tuple[str, ...]) -> Prefix:
        """The prefix under these headings; middle headings go first when it is too long, then its
        end.
        """
        if path not in self._built:
            self._built[path] = self._build(join_title(self._title, path))
        return self._built[path]

    def _build(self, parts: list[str]) -> Prefix:
        line = MARK.join(parts)
        while line:
            prefix = Prefix(line + SEPARATOR, self._counter.count_one(line + SEPARATOR))
            if prefix.tokens <= self._counter.special_tokens:
                break  # a soft hyphen, say: the models see nothing of it
            if prefix.tokens <= self._limit:
                return prefix
            if len(parts) > 2:
                del parts[1]
                line = MARK.join(parts)
            else:
                line = line[: min(len(line) - 1, len(line) * self._limit // prefix.tokens)].rstrip()
        return Prefix("", self._counter.count_one(""))


def join_title(title: str, path: Sequence[str]) -> list[str]:
    """Title and headings, outermost first; of a title and a first heading that begin alike the
    longer one.
    """
    if not title or not path:
        return [*filter(None, [title]), *path]
    first, rest = path[0], path[1:]
    if first.casefold().startswith(title.casefold()):
        return [first, *rest]
    if title.casefold().startswith(first.casefold()):
        return [title, *rest]
    return [title, first, *rest]
