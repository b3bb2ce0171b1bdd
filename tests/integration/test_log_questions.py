"""The filters and greps of docs/logging.md, as they stand there, on what the services of a running
pipeline logged.
"""

import json
import re
import subprocess
import uuid
from typing import Any

import jq
import pytest

from shared.service.telemetry import _console
from tests.support.documented import code_blocks
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

FILTERS = re.compile(r"^jq (-n?R) '([^']+)'(?: \| tail -n \d+)?$", re.MULTILINE)
[QUESTIONS] = [block for block in code_blocks("logging.md", "sh") if block.startswith("# ")]
[GREPS] = [block for block in code_blocks("logging.md", "sh") if block.startswith("grep ")]
KNOWN_EVENTS = (
    "Starting batch processing", "Batch processing complete", "Starting indexing job", "Indexing job completed",
    "Document indexing failed in batch", "Failed to parse document payload", "Service pool initialized",
)  # fmt: skip
PROGRAMS = dict.fromkeys(program for _, program in FILTERS.findall(QUESTIONS))


class Logged:
    """What the services logged: a job of two documents that were indexed, one that failed and one
    that was rejected.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.url = f"https://example.com/{uuid.uuid4()}"
        bad = {"url": f"https://example.com/{uuid.uuid4()}", "markdown": "\x01"}
        good = [{"url": url, "markdown": f"# Page of {url}"} for url in (self.url, f"{self.url}/b")]
        self.job_id = pipeline.index([*good, bad, {"markdown": "no URL"}])
        assert pipeline.finished(self.job_id)["failed"] == 2
        pipeline.http.delete("/api/dead-letters", params={"job_id": self.job_id})
        self._folder = pipeline.data_dir / "logs"
        last = f'select(.event == "Batch handled" and .service == "indexer" and (.jobs | index("{self.job_id}")))'
        block_until(
            lambda: self.ask(f"fromjson? | {last}"),
            timeout=60,
            description="the last line about the job",
        )

    @property
    def lines(self) -> list[str]:
        services = ("ingest", "chunker", "embedder", "indexer")
        files = [
            path for service in services for path in sorted(self._folder.glob(f"{service}-*.log"))
        ]
        return [line for path in files for line in path.read_text().split("\n") if line]

    def ask(self, program: str) -> list[Any]:
        """The answers of a documented filter, about this job and page where it names one."""
        program = program.replace("0b2c...", self.job_id).replace(
            "https://example.com/page", self.url
        )
        if "inputs" in program:  # with -n
            return list(jq.compile(f"def inputs: .[]; {program}").input_value(self.lines).all())
        filtered = jq.compile(program)
        return [answer for line in self.lines for answer in filtered.input_value(line).all()]


@pytest.fixture(scope="module")
def logged(pipeline: Pipeline) -> Logged:
    return Logged(pipeline)


def test_every_documented_filter_is_run_here() -> None:
    assert len(FILTERS.findall(QUESTIONS)) == len(re.findall("^jq ", QUESTIONS, re.MULTILINE))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_documented_filter_answers(logged: Logged, program: str) -> None:
    answers = logged.ask(program.replace("10000", "0"))  # no document takes 10 s here
    if "Lease lost" not in program:  # nobody died either
        assert answers


def test_the_filters_tell_the_life_of_a_job_and_how_many_fail(logged: Logged) -> None:
    [life] = [program for program in PROGRAMS if "service, event" in program]
    events = [answer["event"] for answer in logged.ask(life)]
    assert (
        events.count("Indexing job completed"),
        events.count("Document indexing failed in batch"),
    ) == (2, 1)
    assert {answer["service"] for answer in logged.ask(life)} == {
        "ingest",
        "chunker",
        "embedder",
        "indexer",
    }
    assert (events.count("Job accepted"), events.count("Batch processing complete")) == (1, 1)
    [rate] = [program for program in PROGRAMS if "verdict" in program]
    [answer] = logged.ask(rate)
    assert answer["failed"] >= 1
    assert answer["verdict"] == (
        "ok" if answer["percent"] < 5 else "warn" if answer["percent"] <= 10 else "stop"
    )
    [timeout] = [program for program in PROGRAMS if "timeout_s" in program]
    [answer] = logged.ask(timeout)
    assert answer["timeout_s"] >= 3 * answer["mean_s"] > 0


@pytest.mark.parametrize("command", GREPS.splitlines())
def test_a_documented_grep_finds_lines_in_console_format(logged: Logged, command: str) -> None:
    assert grep(logged, command)


@pytest.mark.parametrize("text", KNOWN_EVENTS)
def test_the_events_that_were_always_there_are_found_by_their_text(
    logged: Logged, text: str
) -> None:
    assert grep(logged, f"grep '{text}'"), text


def test_numbers_are_cut_out_of_a_line_as_ever(logged: Logged) -> None:
    ours = f"grep 'Batch processing complete' | grep {logged.job_id}"
    assert grep(logged, rf"{ours} | grep -oP 'failed=\K[0-9]+'") == ["2"]
    assert grep(logged, rf"{ours} | grep -oP 'success=\K[0-9]+'") == ["2"]
    [milliseconds] = grep(logged, rf"{ours} | grep -oP 'duration_ms=\K[0-9]+'")
    assert int(milliseconds) > 0
    assert (
        len(grep(logged, r"grep 'Indexing job completed' | grep -oP 'duration_ms=\K[0-9]+'")) >= 2
    )
    assert grep(logged, r"grep 'Starting batch processing' | grep -oP 'batch_size=\K[0-9]+'")


def grep(logged: Logged, command: str) -> list[str]:
    """The lines that a command prints of the log in console format."""
    lines = "\n".join(console_line(json.loads(line)) for line in logged.lines)
    done = subprocess.run(
        command, shell=True, input=lines, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout.splitlines()


def console_line(event: dict[str, Any]) -> str:
    """The line that the same event is with WEBHOOK_LOG_FORMAT=console."""
    return _console(None, "", event)
