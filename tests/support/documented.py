"""Code blocks and tables of the documentation, for the tests that check them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics import MetricWrapperBase

from shared.service.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"


class Metric(NamedTuple):
    """One metric in the sources, or one row of docs/metrics.md."""

    kind: str
    labels: tuple[str, ...]
    meaning: str


def code_blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language on a page of docs/, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )


def commands(page: str) -> list[str]:
    """The different command lines of millstream on a page of docs/, without comments.

    They stand in code blocks and in sentences.
    """
    lines = [
        line
        for block in code_blocks(page, "sh")
        for line in block.splitlines()
        if line.startswith("millstream ")
    ]
    sentences = re.findall(r"`(millstream\s[^`]+)`", (DOCS / page).read_text())
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in (*lines, *sentences)})


def rows(page: str, columns: int) -> Iterator[list[str]]:
    """The cells of every table row of a page of docs/ that begins with a name in backquotes."""
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == columns, line
            yield cells


def declared_metrics() -> dict[str, Metric]:
    """Every metric in the sources by its name."""
    metrics = Metrics()
    for name in dir(metrics):
        getattr(metrics, name)  # groups are registered when they are asked for
    collectors = [
        each for each in metrics.registry._collector_to_names if isinstance(each, MetricWrapperBase)
    ]
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: Metric(
            family.type, tuple(collector._labelnames), family.documentation
        )
        for collector in collectors
        for family in collector.describe()
    }
