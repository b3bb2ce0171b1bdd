"""`millstream doctor`: what is wrong, and what to change."""

import asyncio
import os

import typer

from cli.doctor.finding import Examination, Verdict, figure
from cli.output import Exit, Json, console, emit, table

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}
_EXITS = {Verdict.OK: Exit.OK, Verdict.WARN: Exit.WARNED, Verdict.FAIL: Exit.FAILED}


def doctor(as_json: Json = False) -> None:
    """Check settings, servers and work, and say what to change.

    Ends with 0 if all is well, with 5 if there are warnings only, with 1 if something fails.
    """
    from cli.doctor.examination import examine  # noqa: PLC0415 - numpy and tokenizers: 0.4 s of every other command

    examination = asyncio.run(examine(os.environ))
    emit(examination, as_json=as_json, show=lambda: _show(examination))
    if examination.verdict is not Verdict.OK:
        raise typer.Exit(_EXITS[examination.verdict])


def _show(examination: Examination) -> None:
    for finding in examination.findings:
        colour = _COLOURS[finding.verdict]
        console.print(f"[{colour}]{finding.verdict:<4}[/{colour}] {finding.check:<21} ", end="", highlight=False)
        console.print(finding.found, markup=False, highlight=False)
        if finding.remedy:
            console.print(f"     -> {finding.remedy}", markup=False, highlight=False)
        if finding.runbook:
            console.print(f"     -> docs/runbooks/{finding.runbook}.md", markup=False, highlight=False)
    if examination.stages:
        columns = ("stage", "workers", "messages", "mean_s", "documents_per_s", "utilisation")
        rows = [
            [s.stage, s.workers, s.messages, figure(s.mean_s), figure(s.documents_per_s), f"{s.utilisation:.0%}"]
            for s in examination.stages
        ]
        console.print(table(columns, rows))
