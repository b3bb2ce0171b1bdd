"""The parts that all peers share: arguments, chunks and result."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIMENSION = 384
COLLECTION = "peers"


def arguments(
    add: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> argparse.Namespace:
    """The common options and those that `add` adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", required=True, help="JSONL: {url, chunks: [text]}")
    parser.add_argument("--tei", required=True)
    parser.add_argument("--qdrant", required=True)
    add(parser)
    return parser.parse_args()


def load(path: str) -> list[dict[str, Any]]:
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def timed(work: Callable[[], None]) -> None:
    """Do the work and print its cost, child processes included."""
    cpu, started = _cpu_s(), time.monotonic()
    work()
    seconds = time.monotonic() - started
    sys.stdout.write(json.dumps({"seconds": seconds, "cpu_s": _cpu_s() - cpu}) + "\n")


def _cpu_s() -> float:
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
