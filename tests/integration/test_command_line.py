"""The command line against a running pipeline."""

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support.local_stack import bare_environ
from tests.support.pipeline import MILLSTREAM, Pipeline

pytestmark = pytest.mark.timeout(180)


def test_a_folder_is_indexed_and_its_files_are_found(pipeline: Pipeline, tmp_path: Path) -> None:
    word = f"quokka{uuid.uuid4().hex[:8]}"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.md").write_text(f"# Marsupials\n\nThe {word} smiles.\n")
    (tmp_path / "two.txt").write_text("Something else entirely.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    indexed = pipeline.cli("index", str(tmp_path), "--json")
    assert indexed.returncode == 0, indexed.stderr
    assert {k: v for k, v in json.loads(indexed.stdout).items() if k != "jobs"} == {
        "total": 2, "succeeded": 2, "failed": 0, "cancelled": 0,
    }  # fmt: skip

    found = json.loads(pipeline.cli("search", word, "--mode", "keyword", "--json").stdout)
    assert [hit["title"] for hit in found["results"]] == ["Marsupials"]
    url = found["results"][0]["url"]
    for options, hits in ([], 1), (["--offset", "1"], 0), (["--mobile"], 0):
        same = pipeline.cli(
            "search", word, "--mode", "keyword", "--url-prefix", url, *options, "--json"
        )
        assert len(json.loads(same.stdout)["results"]) == hits
    for_people = pipeline.cli("search", word)
    assert for_people.returncode == 0
    assert word in for_people.stdout


def test_lines_come_from_a_file_and_from_standard_input(pipeline: Pipeline, tmp_path: Path) -> None:
    lines = [
        json.dumps({"url": f"https://example.com/{uuid.uuid4()}", "markdown": f"Line {n}."})
        for n in range(3)
    ]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines) + "\n\n")
    assert (
        json.loads(pipeline.cli("index", str(tmp_path / "pages.jsonl"), "--json").stdout)[
            "succeeded"
        ]
        == 3
    )
    piped = subprocess.run(
        [*MILLSTREAM, "index", "-", "--json"], input="\n".join(lines), capture_output=True, text=True, timeout=100,
        env=bare_environ(**pipeline.env), check=False,
    )  # fmt: skip
    assert json.loads(piped.stdout)["succeeded"] == 3


def test_a_document_that_fails_is_named_and_ends_with_1(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"url": "https://example.com/bad", "markdown": 3}\n')
    result = pipeline.cli("index", str(tmp_path / "bad.jsonl"))
    assert result.returncode == 1
    assert "https://example.com/bad" in result.stdout


def test_jobs_are_listed_shown_and_retried(pipeline: Pipeline) -> None:
    job_id = pipeline.index(
        [{"url": f"https://example.com/{uuid.uuid4()}", "markdown": "Text."}, {"markdown": "x"}]
    )
    pipeline.finished(job_id)
    shown = pipeline.cli("jobs", "show", job_id, "--json")
    job = json.loads(shown.stdout)
    assert (shown.returncode, job["status"], [r["position"] for r in job["results"]]) == (
        1,
        "partial",
        [0, 1],
    )
    listed = json.loads(pipeline.cli("jobs", "list", "--status", "partial", "--json").stdout)
    assert job_id in [each["job_id"] for each in listed["jobs"]]
    assert job_id in pipeline.cli("jobs", "list", "--limit", "100").stdout
    # What was rejected at the door has no text to try again with.
    assert json.loads(pipeline.cli("jobs", "retry", job_id, "--json").stdout)["retried"] == 0
    assert json.loads(pipeline.cli("jobs", "cancel", job_id, "--json").stdout)["cancelled"] == 0


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"MILLSTREAM_URL": "http://127.0.0.1:9"}, 3),
        ({"WEBHOOK_API_SECRET": "wrong"}, 4),
    ],
)
def test_exit_codes_tell_why_a_command_failed(
    pipeline: Pipeline, settings: dict[str, str], status: int
) -> None:
    result = subprocess.run(
        [*MILLSTREAM, "jobs", "list"], capture_output=True, text=True, timeout=60, check=False,
        env=bare_environ(**{**pipeline.env, **settings}),
    )  # fmt: skip
    assert result.returncode == status
    assert result.stderr


def test_a_migrated_database_has_nothing_left_to_migrate(pipeline: Pipeline) -> None:
    assert json.loads(pipeline.cli("migrate", "--json").stdout) == {"applied": []}
