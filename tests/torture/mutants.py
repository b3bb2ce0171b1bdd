"""What the suite must notice: each safeguard switched off, and the test that then fails.

`python -m tests.torture.mutants` runs each on a copy of the sources and exits 1 if one of them
passes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
_PACKAGES = ("ingest", "chunker", "embedder", "indexer", "shared", "local", "cli")
# Meetings of a few milliseconds, which these tests stage instead of waiting for them.
_FENCE_MODEL = "tests/unit/indexer/test_fence_model.py::"
_REPLACED = "tests/integration/test_dispatch.py::test_a_dispatcher_that_was_replaced"
_DEPLOYMENTS = "tests/integration/test_deployments.py::"
_COPY = "tests/integration/test_worker.py::test_a_copy_of_an_item_that_was_released_again"


class Mutant(msgspec.Struct, frozen=True):
    """A safeguard, its text in the source, and what fails without it.

    `witness` is a scenario, or a test by the beginning of its name.
    """

    safeguard: str
    path: str
    text: str
    instead: str
    witness: int | str


MUTANTS = (
    Mutant(
        "the owner check of the hand-over", "shared/runtime/streams/lua/handover.lua",
        "if #owner == 0 or owner[1][2] ~= ARGV[2] then", "if false then", 3,
    ),
    Mutant(
        "XADD before XACK", "shared/runtime/streams/lua/handover.lua",
        "-- Lua does not roll back. XADD is the first write, "
        "so a refused XADD leaves the entry pending.\n",
        "redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\n", 26,
    ),
    Mutant(
        "step (d) of the fence: earlier versions' points are deleted", "indexer/fence.py",
        "        await self._store.delete_older(target, [_stored(c) for c in winners])\n", "",
        # In the torture suite the scrubber soon removes such points.
        _FENCE_MODEL + "test_no_hidden_point_stays_behind",
    ),
    Mutant(
        "step (e) of the fence: the winner looks again", "indexer/fence.py",
        "        indexed = await self._keep_current(target, winners)\n",
        "        indexed = winners\n",
        _FENCE_MODEL + "test_a_winner_takes_away",
    ),
    Mutant(
        "the marker check of a release", "shared/runtime/streams/lua/publish.lua",
        "if marker ~= ARGV[1] or tonumber(ARGV[2]) <= tonumber(marker) then", "if false then",
        _REPLACED,
    ),
    Mutant(
        "the owner check of a release", "shared/runtime/streams/lua/publish.lua",
        "if owner and owner ~= ARGV[3] then", "if false then",
        _DEPLOYMENTS + "test_a_dispatcher_publishes_nothing",
    ),
    Mutant(
        "the owner check of a worker", "shared/runtime/streams/deployment.py",
        "if owner != self.id:", "if False:",
        _DEPLOYMENTS + "test_a_stage_that_runs",
    ),
    Mutant(
        "the check that a copy is of the current release", "shared/jobs/progress.py",
        "i.state = 'released' AND i.release = k.release", "i.state = 'released'", _COPY,
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.mutants", description=__doc__)
    parser.add_argument(
        "--only", type=int, action="append", choices=range(len(MUTANTS)), help="by number, from 0"
    )
    parser.add_argument("--full", action="store_true", help="the full sizes of the scenarios")
    options = parser.parse_args()
    survivors = 0
    _print("| switched off | what fails | what it reports |\n|---|---|---|")
    for number in options.only or range(len(MUTANTS)):
        mutant = MUTANTS[number]
        finding = _finding(mutant, is_full=options.full)
        survivors += finding is None
        witness = (
            f"scenario {mutant.witness}"
            if isinstance(mutant.witness, int)
            else f"`{mutant.witness}...`"
        )
        _print(f"| {mutant.safeguard} | {witness} | {finding or 'NOTHING'} |")
    return 1 if survivors else 0


def _finding(mutant: Mutant, *, is_full: bool) -> str | None:
    """The first thing that is found wrong with the mutant; None if it is taken for sound."""
    with tempfile.TemporaryDirectory(prefix="millstream-mutant-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        for package in _PACKAGES:
            shutil.copytree(
                ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        path = directory / mutant.path
        source = path.read_text()
        if source.count(mutant.text) != 1:
            raise SystemExit(f"{mutant.path} does not hold this once: {mutant.text}")
        path.write_text(source.replace(mutant.text, mutant.instead))
        return _witness(mutant.witness, directory, is_full=is_full)


def _witness(witness: int | str, sources: Path, *, is_full: bool) -> str | None:
    if isinstance(witness, int):
        argv = [
            "-m",
            "tests.torture",
            "--scenario",
            str(witness),
            *([] if is_full else ["--short"]),
        ]
    else:
        path, _, test = witness.partition("::")
        argv = [
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "--import-mode=append",
            str(ROOT / path),
            "-k",
            test,
        ]
    # The sources precede the installed ones; -P: the working directory does not precede both.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(sources), str(ROOT)])}
    ended = subprocess.run(
        [sys.executable, "-P", *argv],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return None
    mark = "   " if isinstance(witness, int) else "E   "
    told = [
        line.removeprefix(mark).strip()
        for line in ended.stdout.splitlines()
        if line.startswith(mark)
    ]
    return told[0] if told else ended.stderr[-300:]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
