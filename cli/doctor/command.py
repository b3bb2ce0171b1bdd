"""`millstream doctor`: what is wrong, and what to change."""

import os
from typing import TYPE_CHECKING

import typer

from cli.failures import Exit
from cli.output import Json, console, emit, table

if TYPE_CHECKING:
    from cli.doctor.finding import Examination

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_EXITS = {"ok": Exit.OK, "warn": Exit.WARNED, "fail": Exit.FAILED}


def doctor(as_json: Json = False) -> None:
    """Check settings, servers and stuck work; say what to change.

    Asks ingest at MILLSTREAM_URL first, then each server at the address in this environment
    (WEBHOOK_REDIS_URL, WEBHOOK_DATABASE_URL, WEBHOOK_TEI_URL, WEBHOOK_QDRANT_URL). It changes
    nothing. Run it where the services run, for example with Docker:

    docker compose exec ingest millstream doctor

    Exit status: 0 if all is well, 5 if there are warnings only, 1 if a check failed.
    """
    import asyncio

    from cli.doctor.examination import examine

    examination = asyncio.run(examine(os.environ))
    emit(examination, as_json=as_json, show=lambda: _show(examination))
    if examination.verdict != "ok":
        raise typer.Exit(_EXITS[examination.verdict])


def _show(examination: "Examination") -> None:
    from cli.doctor.finding import figure

    for finding in examination.findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict:<4}[/{colour}]"
        console().print(f"{verdict} {finding.check:<21} ", end="", highlight=False)
        _print(finding.found)
        if finding.remedy:
            _print(f"     -> {finding.remedy}")
        if finding.runbook:
            _print(f"     -> docs/runbooks/{finding.runbook}.md")
    if examination.stages:
        columns = ("stage", "workers", "messages", "mean_s", "documents_per_s", "utilisation")
        rows = [
            [
                load.stage,
                load.workers,
                load.messages,
                figure(load.mean_s),
                figure(load.documents_per_s),
                f"{load.utilisation:.0%}",
            ]
            for load in examination.stages
        ]
        console().print(table(columns, rows))


def _print(line: str) -> None:
    console().print(line, markup=False, highlight=False)
