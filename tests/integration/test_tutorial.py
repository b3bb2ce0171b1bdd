"""docs/tutorial.md as it stands there: its stage in a pipeline that has no other chunker, and its
unit tests.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documented import code_blocks
from tests.support.pipeline import Pipeline, running_pipeline
from tests.support.waiting import block_until

ROOT = Path(__file__).parents[2]
PAGE = "tutorial.md"
WORK, PROCESS, TESTS = code_blocks(PAGE, "python")
START, INDEX, RUN, SEARCH, FAIL, STOP = code_blocks(PAGE, "sh")
PROGRAM = ".venv/bin/python my_chunker.py &"
REPLICAS = "chunker=0"

pytestmark = pytest.mark.timeout(240)


class Reader:
    """A reader of the page, in a folder of their own."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.folder = folder
        self.pipeline = pipeline
        self.chunker: subprocess.Popen[bytes] | None = None
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        (folder / ".millstream").symlink_to(pipeline.data_dir)
        (folder / "my_chunker.py").write_text(f"{WORK}\n\n{PROCESS}")
        self.env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **pipeline.env}

    def run(self, block: str) -> str:
        """Run the lines of a block that are not about the process, which this test starts and stops
        itself.
        """
        script = "\n".join(line for line in block.splitlines() if line not in {PROGRAM, "kill %1"})
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_chunker(self) -> None:
        with (self.folder / "chunker.log").open("ab") as log:
            self.chunker = subprocess.Popen(
                [sys.executable, "my_chunker.py"],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
            )

    def stop_chunker(self) -> int:
        assert self.chunker is not None
        self.chunker.send_signal(signal.SIGTERM)
        return self.chunker.wait(timeout=60)

    def all_jobs_have_ended(self) -> None:
        """Wait until the pipeline has nothing left to do."""
        block_until(lambda: not self.open_jobs(), timeout=90.0, description="no job is open")

    def open_jobs(self) -> list[object]:
        found = []
        for status in ("queued", "running"):
            found += self.pipeline.http.get("/api/jobs", params={"status": status}).json()["jobs"]
        return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with running_pipeline("--replicas", REPLICAS) as pipeline:
        reader = Reader(tmp_path_factory.mktemp("tutorial"), pipeline)
        yield reader
        if reader.chunker is not None and reader.chunker.poll() is None:
            reader.chunker.kill()
            reader.chunker.wait()


def test_the_page_starts_the_pipeline_and_the_stage_as_this_test_does() -> None:
    assert f"millstream up --replicas {REPLICAS}\n" in START
    assert f"{PROGRAM}\n" == RUN
    assert PROGRAM in STOP


def test_the_stage_indexes_fails_and_stops_as_the_page_says(reader: Reader) -> None:
    streams = reader.run(INDEX)
    assert "chunker" in streams

    reader.start_chunker()
    reader.all_jobs_have_ended()
    found = reader.run(SEARCH)
    assert "indexed" in found
    assert "The heron waits in the shallows." in found
    assert "Then it strikes." in found

    reader.run(FAIL.splitlines()[0])
    reader.run(FAIL.splitlines()[1])
    reader.all_jobs_have_ended()
    failed = reader.run(FAIL.splitlines()[2])
    assert "empty.md" in failed
    assert "herons.md" not in failed

    assert reader.stop_chunker() == 0
    reader.run(STOP)
    reader.start_chunker()
    reader.all_jobs_have_ended()
    assert reader.stop_chunker() == 0


def test_the_unit_tests_of_the_page_pass(tmp_path: Path) -> None:
    (tmp_path / "my_chunker.py").write_text(f"{WORK}\n\n{PROCESS}")
    (tmp_path / "test_my_chunker.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_chunker.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b3 passed", done.stdout)
