"""Lines fit into 100 columns, except rows of Markdown tables and lines that a URL makes long.

`COVERED` names what is clean. To cover another folder, wrap its lines and add it there.
"""

import re

import pytest

from tests.unit.test_words import ROOT, sources

MAX_COLUMNS = 100
URL = re.compile(r"https?://\S{20,}|\]\([^)]+\)")
PRAGMA = re.compile(r"  # (?:type: ignore|noqa)\S*.*$")  # for a tool, not for a reader
TABLE_OR_FIGURES = ("|", '{"')  # rows of a table, and the figures that the benchmarks write

BENCH = ("bench/peers", *sorted(f"bench/{path.name}" for path in (ROOT / "bench").glob("*.py")))
# Styles and HTML are not covered yet.
PAGE = sorted(f"ingest/http/static/{path.name}" for path in (ROOT / "ingest").rglob("*.js"))
SUPPORT = tuple(
    sorted(
        f"tests/support/{path.name}"
        for path in (ROOT / "tests/support").glob("*.py")
        if path.name != "tei_stand_in.py"  # not covered yet
    )
)

COVERED = (
    ".env.example",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "README.md",
    "chunker",
    "cli",
    "compose.yaml",
    "deploy/README.md",
    "deploy/compose.gpu.yaml",
    "deploy/kubernetes",
    "docs",
    "embedder",
    "examples",
    "indexer",
    "ingest/__main__.py",
    "ingest/dispatch",
    "ingest/documents",
    "ingest/http/app.py",
    "ingest/http/bodies.py",
    "ingest/http/deadline.py",
    "ingest/http/job_events.py",
    "ingest/http/openapi.py",
    "ingest/http/parameters.py",
    "ingest/http/qdrant_check.py",
    "ingest/http/routes",
    "ingest/http/sessions.py",
    "ingest/inspection",
    "ingest/jobs",
    "ingest/upkeep",
    "local",
    "shared",
    "tests/browser",
    "tests/contract",
    "tests/torture",
    "tests/unit/bench",
    "tests/unit/chunker",
    "tests/unit/cli",
    "tests/unit/embedder",
    "tests/unit/indexer",
    "tests/unit/ingest",
    "tests/unit/local",
    "tests/unit/shared",
    "tests/unit/torture",
    *BENCH,
    *PAGE,
    *SUPPORT,
)


def too_long(text: str, *, is_markdown: bool) -> list[str]:
    """The lines over the limit, with their numbers."""
    return [
        f"line {number} has {len(line)} columns"
        for number, line in enumerate((PRAGMA.sub("", each) for each in text.splitlines()), start=1)
        if len(line) > MAX_COLUMNS
        and not (is_markdown and line.startswith(TABLE_OR_FIGURES))
        and not URL.search(line)
    ]


@pytest.mark.parametrize("covered", COVERED)
def test_a_covered_path_has_no_long_line(covered: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {each}"
        for path in sources(covered)
        for each in too_long(path.read_text(), is_markdown=path.suffix == ".md")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "is_markdown", "is_found"),
    [
        ("x" * 100, False, False),
        ("x" * 101, False, True),
        ("| " + "x" * 101, True, False),
        ("| " + "x" * 101, False, True),
        ("# see https://example.com/a/long/address/of/an/upstream/issue " + "x" * 60, False, False),
    ],
)
def test_a_line_is_measured(line: str, is_markdown: bool, is_found: bool) -> None:
    assert bool(too_long(line, is_markdown=is_markdown)) == is_found
