"""Texts that were in a request on which TEI broke: they are sent in ever smaller groups, in the end
alone. Pure.

The process remembers them, because TEI takes a while to restart, and the documents come back later,
in other batches. So the text that breaks TEI is alone after a few crashes, and the others are
released.
"""

from collections.abc import Sequence

MAX_REMEMBERED = 10_000  # the oldest are forgotten first: 1 MB


class Quarantine:
    """The texts of one model in quarantine, and how many texts the next request with one of them
    may hold.
    """

    def __init__(self) -> None:
        # By hash of a text. 0: TEI broke on it alone.
        self._group_size: dict[int, int] = {}

    def groups(self, texts: Sequence[str]) -> list[list[int]]:
        """Indexes of the texts that may share a request; those not quarantined are one group."""
        members: dict[int, list[int]] = {}
        for index, text in enumerate(texts):
            size = max(1, self._group_size.get(hash(text), len(texts)))
            members.setdefault(size, []).append(index)
        return [
            indexes[start : start + size]
            for size, indexes in members.items()
            for start in range(0, len(indexes), size)
        ]

    def is_single(self, texts: Sequence[str]) -> bool:
        """Whether this is one text whose request must be exclusive."""
        return len(texts) == 1 and self._group_size.get(hash(texts[0]), 2) <= 1

    def is_confirmed(self, text: str) -> bool:
        """Whether TEI broke on this text alone, and no document has been told yet."""
        return self._group_size.get(hash(text)) == 0

    def broke(self, texts: Sequence[str], *, alone: bool = False) -> None:
        """TEI broke on a request of these texts; `alone`: no other request was in flight."""
        size = 0 if alone else max(1, len(texts) // 2)
        for text in texts:
            self._group_size.pop(hash(text), None)  # inserted again, it is the youngest
            self._group_size[hash(text)] = size
        while len(self._group_size) > MAX_REMEMBERED:
            del self._group_size[next(iter(self._group_size))]

    def reported(self, text: str) -> None:
        """The document has failed for it; the next time the text is sent again, alone."""
        self._group_size[hash(text)] = 1

    def passed(self, texts: Sequence[str]) -> None:
        """TEI embedded these texts: none of them is at fault."""
        for text in texts:
            self._group_size.pop(hash(text), None)
