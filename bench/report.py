"""The end of a benchmark: a table, files in bench/results/, and one last line of JSON."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PERFORMANCE_PAGE = DOCS / "performance.md"
SEARCH_PAGE = DOCS / "search.md"

_END = "<!-- end of figures -->"

Row = dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one benchmark."""

    figures: dict[str, Any]  # the last line
    rows: Sequence[Row]  # the table; all rows have the same columns
    note: str  # how it was measured, besides the machine
    plot: Callable[[Axes], None]


def run(
    name: str, measure: Callable[[], Coroutine[Any, Any, Report]], page: Path = PERFORMANCE_PAGE
) -> None:
    """The main function of a benchmark; `page` is the page of docs/ that gets its figures."""
    report = asyncio.run(measure())
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "figures": report.figures,
        "conditions": {**machine(), "note": report.note},
        "rows": list(report.rows),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")
    _draw(RESULTS / f"{name}.png", report.plot)
    write_figures(name, f"{table(report.rows)}\n\n```json\n{json.dumps(report.figures)}\n```", page)
    sys.stdout.write(table(report.rows) + "\n" + json.dumps(report.figures) + "\n")


def write_figures(name: str, figures: str, page: Path) -> None:
    """Replace the figures between the benchmark's marks in a page."""
    begin = f"<!-- figures: make bench NAME={name} -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n{figures}\n{_END}{rest.partition(_END)[2]}")


def machine() -> dict[str, Any]:
    """The machine, on which the figures depend."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else "unknown",
        "python": platform.python_version(),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; floats with three significant digits."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def rounded(value: float) -> float:
    """A number with three significant digits: more would be noise."""
    return float(f"{value:.3g}")


def _cell(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _draw(path: Path, plot: Callable[[Axes], None]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
