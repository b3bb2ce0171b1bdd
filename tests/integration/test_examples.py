"""The programs of examples/ against a running pipeline: they need nothing but Python itself."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.failed_documents import failed_document
from tests.support.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_LINES = 60


def run(pipeline: Pipeline, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example without any installed package (-S) and without this checkout's path (-I)."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(EXAMPLES / name), *arguments],
        env={"PATH": os.environ["PATH"], **pipeline.env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_crawl_is_sent_followed_and_found(pipeline: Pipeline, tmp_path: Path) -> None:
    word = f"quokka{uuid.uuid4().hex}"
    site = f"https://{uuid.uuid4()}.example.org"
    for name in ("first", "second"):
        (tmp_path / f"{name}.md").write_text(
            f"# The {name} page\n\nAbout the {word} and the {name} of its kind."
        )
    sent = run(pipeline, "send_crawl.py", site, *map(str, sorted(tmp_path.glob("*.md"))))
    assert sent.returncode == 0, sent.stderr
    jobs = sent.stdout.split()
    assert len(jobs) == 2

    for job_id, name in zip(jobs, ("first", "second"), strict=True):
        watched = run(pipeline, "watch_job.py", job_id)
        assert watched.returncode == 0, watched.stderr
        assert watched.stdout.splitlines() == [
            f"indexed {site}/{name} ",
            "succeeded: 1 of 1 documents",
        ]

    found = run(pipeline, "search.py", word, site.removeprefix("https://"))
    assert found.returncode == 0, found.stderr
    urls = {line.split()[-1] for line in found.stdout.splitlines() if line[0].isdigit()}
    assert urls == {f"{site}/first", f"{site}/second"}
    assert word in found.stdout


def test_watching_a_job_whose_document_failed_exits_with_1(pipeline: Pipeline) -> None:
    document = failed_document(pipeline)
    watched = run(pipeline, "watch_job.py", document.job_id)
    pipeline.http.delete("/api/dead-letters", params={"job_id": document.job_id})
    assert watched.returncode == 1, watched.stderr
    result, last = watched.stdout.splitlines()
    assert result.startswith("failed ")
    assert last == "failed: 0 of 1 documents"


def test_watching_a_job_that_does_not_exist_ends_with_the_servers_answer(
    pipeline: Pipeline,
) -> None:
    watched = run(pipeline, "watch_job.py", str(uuid.uuid4()))
    assert watched.returncode == 1
    assert "HTTP Error 404" in watched.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    assert f"python3 {path.name}" in text
    assert path.name in (EXAMPLES / "README.md").read_text()
