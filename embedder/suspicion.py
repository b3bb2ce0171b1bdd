"""What to think of texts in whose company TEI broke: they travel in ever smaller company, in the end alone. Pure.

A process remembers it, because TEI takes a while to come back, and the documents with it, among new neighbours. So the
text that breaks TEI is alone after a few crashes, and those that only happened to be under way are cleared.
"""

from collections.abc import Sequence

MAX_REMEMBERED = 10_000  # the oldest are forgotten first: 1 MB


class Suspicion:
    """The suspected texts of one TEI, and of how many texts the next request with one of them may be."""

    def __init__(self) -> None:
        self._company: dict[int, int] = {}  # hash of a text -> texts in its next request; 0: TEI broke on it alone

    def groups(self, texts: Sequence[str]) -> list[list[int]]:
        """The indexes of the texts that may travel together; those that nobody suspects are one group."""
        members: dict[int, list[int]] = {}
        for index, text in enumerate(texts):
            company = max(1, self._company.get(hash(text), len(texts)))
            members.setdefault(company, []).append(index)
        return [
            indexes[start : start + company]
            for company, indexes in members.items()
            for start in range(0, len(indexes), company)
        ]

    def is_to_be_alone(self, texts: Sequence[str]) -> bool:
        """Whether this is one text that was suspected down to the last."""
        return len(texts) == 1 and self._company.get(hash(texts[0]), 2) <= 1

    def is_proved(self, text: str) -> bool:
        """Whether TEI broke on this text alone, and nobody has been told yet."""
        return self._company.get(hash(text)) == 0

    def broke(self, texts: Sequence[str], *, alone: bool = False) -> None:
        """TEI broke on a request of these texts; `alone`: nothing else was under way."""
        company = 0 if alone else max(1, len(texts) // 2)
        for text in texts:
            self._company.pop(hash(text), None)  # what is noted again is the youngest
            self._company[hash(text)] = company
        while len(self._company) > MAX_REMEMBERED:
            del self._company[next(iter(self._company))]

    def told(self, text: str) -> None:
        """The document has paid for it; the next time the text is sent again, alone."""
        self._company[hash(text)] = 1

    def passed(self, texts: Sequence[str]) -> None:
        """TEI embedded these texts: none of them is at fault."""
        for text in texts:
            self._company.pop(hash(text), None)
