"""The record of a run: the figures in a file, and the tables in docs/docker.md made from them."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.compose.images import ROOT
from tests.compose.scenario import Figures

RESULTS = ROOT / "tests/compose/results.json"
DOCUMENT = ROOT / "docs/docker.md"
BEGIN = "<!-- compose test: begin -->"
END = "<!-- compose test: end -->"


def record(figures: Figures, results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Keep the figures, and make the part of the document between the two marks anew."""
    results.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    before, rest = document.read_text().split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n{rendered(figures)}{END}{after}")


def rendered(figures: Figures) -> str:
    """The figures as markdown."""
    lines = [f"Compose {figures.compose}, Docker Engine {figures.engine}. Stand-ins for:", ""]
    lines += [f"* `{name}`" for name in figures.stand_ins or ["nothing"]]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _summary(figures).items()]
    lines += ["", *_by_service(figures), "", "| layer of the image | size |", "|---|---|"]
    lines += [f"| {_instruction(command)} | {size} |" for size, command in figures.layers]
    return "\n".join(lines) + "\n"


def _summary(figures: Figures) -> dict[str, str]:
    return {
        "image built": f"{figures.build_s:.0f} s",
        "everything healthy after `up`": f"{figures.healthy_s:.0f} s",
        "first crawl, undisturbed": f"{figures.quiet_crawl_s:.0f} s",
        "second crawl, with four embedders, restarts and kills": f"{figures.busy_crawl_s:.0f} s",
        "webhook events sent again by the crawler": str(figures.resent),
        "documents": str(figures.documents),
        "chunks; points in Qdrant": f"{figures.chunks}; {figures.points}",
    }


def _by_service(figures: Figures) -> list[str]:
    head = [
        "| service | idle, MiB | at work, MiB | restart, s | SIGKILL to healthy, s |",
        "|---|---|---|---|---|",
    ]
    columns: list[tuple[Mapping[str, float], int]] = [
        (figures.idle_mib, 0), (figures.loaded_mib, 0), (figures.restart_s, 1), (figures.kill_s, 1)
    ]  # fmt: skip
    rows = [
        [f"{values[name]:.{digits}f}" if name in values else "" for values, digits in columns]
        for name in figures.restart_s
    ]
    return head + [
        f"| {name} | {' | '.join(row)} |" for name, row in zip(figures.restart_s, rows, strict=True)
    ]


def _instruction(command: str) -> str:
    """The instruction of a layer without the parts that differ from build to build."""
    if match := re.search(r"COPY .* in (\S+)", command):
        return f"`COPY` to `{match[1]}`"
    command = re.sub(r"^(\|\d+ (\S+=\S* )*)?/bin/sh -c (#\(nop\) *)?", "", command)
    return f"`{command[:60]}`" if command else "base image"
