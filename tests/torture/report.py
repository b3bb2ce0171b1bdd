"""Results of full runs: kept in a file, and rendered as the table in docs/reliability.md."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tests.torture.driver import Result
from tests.torture.scenarios import SCENARIOS

RESULTS = Path("tests/torture/results.json")
DOCUMENT = Path("docs/reliability.md")
BEGIN = "<!-- torture results: begin -->"
END = "<!-- torture results: end -->"

_HEAD = """\
| # | scenario | seed | documents | faults | redeliveries | hand-overs refused | lost | doubled \
| seconds to CLEAN |
|---|---|---|---|---|---|---|---|---|---|
"""


def line(result: Result) -> str:
    """The result as one line of JSON, without the problems, which people read above it."""
    row = msgspec.structs.asdict(result)
    del row["problems"]
    return msgspec.json.encode(row).decode()


def record(results: Iterable[Result], path: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Store the results, replacing those of the same scenario and seed, and render the table."""
    kept = msgspec.json.decode(path.read_bytes(), type=list[Result]) if path.exists() else []
    by_run = {(result.scenario, result.seed): result for result in [*kept, *results]}
    rows = [by_run[key] for key in sorted(by_run)]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    before, rest = document.read_text().split(BEGIN)
    _, after = rest.split(END)
    document.write_text(before + BEGIN + "\n" + table(rows) + END + after)


def table(results: Sequence[Result]) -> str:
    """The results as a markdown table."""
    return _HEAD + "".join(
        f"| {r.scenario} | {SCENARIOS[r.scenario].title} | {r.seed} | {r.documents} | {r.faults} "
        f"| {r.redeliveries} | {r.refused} | {r.lost} | {r.doubled} "
        f"| {f'{r.seconds:g}' if r.clean else 'not clean'} |\n"
        for r in results
    )
