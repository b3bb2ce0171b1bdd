"""The table of results in docs/reliability.md, made by a run."""

from collections.abc import Sequence
from pathlib import Path

from tests.torture.driver import Result
from tests.torture.scenarios import SCENARIOS

BEGIN = "<!-- torture results: begin -->"
END = "<!-- torture results: end -->"


def write_table(document: Path, results: Sequence[Result], *, is_short: bool) -> None:
    """Replace what stands between the markers."""
    before, rest = document.read_text().split(BEGIN)
    _, after = rest.split(END)
    document.write_text(before + BEGIN + "\n" + table(results, is_short=is_short) + END + after)


def table(results: Sequence[Result], *, is_short: bool) -> str:
    """The results as a markdown table, with how to get them again."""
    size = " --short" if is_short else ""
    lines = [
        f"Made by `python -m tests.torture{size} --seed {results[0].seed} --write-table`.\n",
        "| # | scenario | documents | faults | redeliveries | refused hand-overs | lost | doubled | clean | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.scenario} | {SCENARIOS[r.scenario].title} | {r.documents} | {r.faults} | {r.redeliveries} | {r.refused} "
        f"| {r.lost} | {r.doubled} | {'yes' if r.clean else 'no'} | {r.seconds:g} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"
