"""Plain English: words that the glossary replaces appear in no covered source, message, test name
or page.

`COVERED` is every source and page of the project.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {
    ".css", ".env", ".html", ".js", ".json", ".lua", ".md", ".py", ".sh", ".sql", ".toml", ".yaml",
}  # fmt: skip
NOT_READ = {"LICENSE.md", "__pycache__", "pictures", "results"}

COVERED = (
    ".ci/run",
    ".env.example",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "Makefile",
    "README.md",
    "bench",
    "chunker",
    "cli",
    "compose.yaml",
    "deploy",
    "docs",
    "embedder",
    "examples",
    "indexer",
    "ingest",
    "local",
    "pyproject.toml",
    "shared",
    "tests",
)


class Rule(NamedTuple):
    """A retired way to say something, and the term to use; what `unless` matches is meant
    otherwise.
    """

    pattern: str
    use: str
    unless: str = "(?!)"


PERSONS = r"person|people|users?|operators?|engineers?|those|anyone|readers?|one"
BE = r"is|are|was|were|be|been|being"

RULES = (
    Rule(rf"(?:{BE}|goes|gone|stays?) (?:(?:postgres|redis|tei|qdrant) )?away", "unavailable"),
    Rule(rf"(?:{BE}|comes?|came) back (?:up|again)", "available again"),
    Rule(r"in work(?![:)])|under way", "in flight, in progress", unless="make|makes"),
    Rule(
        r"suspect\w*|suspicio\w*|acquit\w*|blam(?:e|es|ed|ing)", "quarantined, at fault, reclassify"
    ),
    Rule(r"complaints?|complain(?:s|ed)?", "rejection"),
    Rule(r"epidemics?", "correlated failure"),
    Rule(r"distrust\w*", "back off"),
    Rule(r"mend(?:s|ed|ing)?", "recover"),
    Rule(r"undated", "clock skew"),
    Rule(r"introduc(?:e|es|ed|ing|tions?)", "handshake"),
    Rule(r"bur(?:y|ies|ied|ying)", "dead-letter"),
    Rule(
        r"(?:dead-|dead |capital |case )?letters?(?: and digits|, digits| or digit)?",
        "dead letter",
        unless="^(dead|capital|case)|digits?$",
    ),
    Rule(r"(?:in|with) (?:whose|its|their|ever smaller) company", "batch-mates"),
    Rule(r"crossings?", "exclusive request"),
    Rule(r"outlines?(?![-:])|recipes?", "one word of docs/glossary.md"),
    Rule(rf"(?:(?:{PERSONS}) )?who(?:m|ever)?", "name the process", unless=f"^({PERSONS})"),
    Rule(r"(?:it|they|which|that|document) pays?|pays? for (?:it|them|that)", "costs an attempt"),
    Rule(r"sent away|stands? still", "fails, is stopped"),
)
# The contract: log events, alert and scenario names, pinned by other tests. They are cut out before
# the rules apply.
CONTRACT = (
    "letter-spacing",  # of CSS
    "TEI refuses, hangs and goes away",  # scenario 13 of the torture suite
    "indexers overtaken while they stand still",  # scenario 16
)


FILE = re.compile(r"[\w/]+\.(?:py|lua|sql)\b")
IDENTIFIER_OF_A_LETTER = re.compile(r"\b\w+_letters?\b|\bletters?_\w+|\bletters?\b(?=[.=(\[])")


def sources(covered: str) -> Iterator[Path]:
    """The text files at a path of the checkout."""
    path = ROOT / covered
    if path.is_file():
        yield path
        return
    assert path.is_dir(), f"{covered} is covered but not there"
    for found in sorted(path.rglob("*")):
        if (
            found.suffix in SUFFIXES
            and not NOT_READ & set(found.relative_to(ROOT).parts)
            and found != Path(__file__)
        ):
            yield found


def findings(text: str) -> list[str]:
    """What a text says in retired words, a line each. Names of files are checked where the file is."""
    for phrase in CONTRACT:
        text = text.replace(phrase, "-" * len(phrase))
    for exempt in (FILE, IDENTIFIER_OF_A_LETTER):
        text = exempt.sub(lambda match: "-" * len(match[0]), text)
    plain = text.replace("_", " ")
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; use: {rule.use}"
        for rule in RULES
        for match in re.finditer(
            rf"\b(?:{rule.pattern})\b".replace(" ", r"[\s#]+"), plain, re.IGNORECASE
        )
        if not re.search(rule.unless, match[0], re.IGNORECASE)
    ]


@pytest.mark.parametrize("covered", COVERED)
def test_a_covered_path_uses_no_retired_word(covered: str) -> None:
    assert list(sources(covered))
    found = [
        f"{path.relative_to(ROOT)}: {each}"
        for path in sources(covered)
        for each in [*findings(path.stem), *findings(path.read_text())]
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "Postgres is away",
        "if is_postgres_away(error):",
        "def test_a_batch_in_work_is_split() -> None:",
        "entries that are under way",
        "the suspect texts",
        "whoever waits is sent away",
        "the process who holds it",
        "a letter is replayed once",
    ],
)
def test_a_retired_word_is_found(text: str) -> None:
    assert findings(text)


@pytest.mark.parametrize(
    "text",
    [
        "Postgres is unavailable",
        "it takes its own points away",
        "dead letters, and dead-letter counts",
        "a person who looks at the log",
        "lower-case letters and digits",
        "outline: none",
    ],
)
def test_the_term_in_its_place_is_not_found(text: str) -> None:
    assert findings(text) == []


def test_the_glossary_has_every_word_once_in_order() -> None:
    page = (ROOT / "docs/glossary.md").read_text()
    words = [row.split("|")[1].strip() for row in page.splitlines() if row.startswith("| ")][1:]
    assert words == sorted(set(words), key=str.casefold)
