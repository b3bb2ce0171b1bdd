"""What the documentation shows as code and in tables, so that tests hold it to be true as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def code_blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language on a page of docs/, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def rows(page: str, columns: int) -> Iterator[list[str]]:
    """The cells of every table row of a page of docs/ that begins with a name in backquotes."""
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == columns, line
            yield cells
