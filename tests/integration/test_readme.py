"""The first commands of README.md and examples/README.md, as they stand there, against a running
pipeline.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIRST_LINES = 10


def blocks(text: str) -> list[str]:
    """The fenced shell blocks of a page."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A folder that looks like a checkout in which `make run` is running."""
    for name in ("README.md", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / ".millstream").symlink_to(pipeline.data_dir)
    return tmp_path


def run(script: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run a block in a shell that has nothing but PATH and ends at the first command that fails."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_readme_begins_with_ten_lines_of_which_the_first_starts_the_pipeline() -> None:
    start, commands, *_ = blocks(README)
    assert start.startswith("make run ")
    assert start.count("\n") + commands.count("\n") == FIRST_LINES
    # `make run` runs this, and so does the fixture.
    assert "millstream up --sample" in (ROOT / "Makefile").read_text()


def test_the_lines_of_the_readme_run_and_find_the_page(checkout: Path) -> None:
    done = run(blocks(README)[1], checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "https://docs.example.com/README" in done.stdout
    assert '"status":"healthy"' in done.stdout.replace(" ", "")


def test_the_lines_of_the_examples_run(checkout: Path) -> None:
    [block] = blocks((ROOT / "examples/README.md").read_text())
    done = run(block, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded: 1 of 1 documents" in done.stdout
    assert "1. README  https://docs.example.com/README" in done.stdout
