"""The commands of docs/runbooks/, as they stand there, on a running pipeline: they are understood,
and answer.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from redis import Redis

from cli.failures import Exit
from tests.support.documented import DOCS, code_blocks
from tests.support.failed_documents import FailedDocument, failed_document
from tests.support.inspection import query
from tests.support.local_stack import bare_environ
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.timeout(120)

PAGES = sorted(f"runbooks/{path.name}" for path in (DOCS / "runbooks").glob("*.md"))
LINES = dict.fromkeys(
    " ".join(words)
    for page in PAGES
    for block in code_blocks(page, "sh")
    for line in block.splitlines()
    if (words := [shlex.quote(word) for word in shlex.split(line, comments=True)])
)
STATEMENTS = [block for page in PAGES for block in code_blocks(page, "sql")]
EXITS = {Exit.OK, Exit.FAILED, Exit.WARNED}  # what is looked at may be in trouble

# Runs many commands in one process: each would import for a second.
RUN = """
import json, sys
from typer.testing import CliRunner
from cli.main import app
done = [CliRunner().invoke(app, words) for words in json.load(sys.stdin)]
is_told = [each.exception is None or isinstance(each.exception, SystemExit) for each in done]
json.dump([[each.exit_code, told, each.output] for each, told in zip(done, is_told)], sys.stdout)
"""


class Answer(msgspec.Struct, array_like=True):
    """How a command of millstream ended."""

    exit_code: int
    is_told: bool  # it ended by itself, not by an error that nobody expected
    output: str


@pytest.fixture(scope="module")
def failed(pipeline: Pipeline) -> Iterator[FailedDocument]:
    document = failed_document(pipeline)
    yield document
    pipeline.http.delete("/api/dead-letters", params={"job_id": document.job_id})


@pytest.fixture(scope="module")
def answers(pipeline: Pipeline, failed: FailedDocument) -> dict[str, Answer]:
    """What all commands of millstream answer, one after the other."""
    lines = [line for line in LINES if line.startswith("millstream ")]
    commands = [words_of(line, failed)[1:] for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(commands), env=bare_environ(**pipeline.env),
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return dict(zip(lines, msgspec.json.decode(done.stdout, type=list[Answer]), strict=True))


def words_of(line: str, failed: FailedDocument) -> list[str]:
    """The words of a command, about this document where the page names one."""
    places = {"JOB_ID": failed.job_id, "CODE": failed.code, "17": str(failed.letter_id)}
    return [
        places.get(word, word).replace("https://example.com/page", failed.url)
        for word in shlex.split(line)
    ]


def ask_redis(url: str, words: list[str]) -> Any:
    """What `redis-cli -u URL WORDS` asks; raises if Redis refuses it."""
    with Redis.from_url(url) as redis:
        redis.response_callbacks.clear()  # they know the shapes of redis-py's own calls only
        return redis.execute_command(*words)


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("redis-cli ")])
def test_a_command_of_a_runbook_answers(answers: dict[str, Answer], line: str) -> None:
    assert answers[line].is_told, answers[line].output
    assert answers[line].exit_code in EXITS, answers[line].output


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("redis-cli ")])
def test_redis_understands_a_command_of_a_runbook(
    pipeline: Pipeline, failed: FailedDocument, line: str
) -> None:
    _, option, url, *words = words_of(line, failed)
    assert (option, url) == ("-u", "$WEBHOOK_REDIS_URL")
    ask_redis(pipeline.env["WEBHOOK_REDIS_URL"], words)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_of_a_runbook_answers(
    pipeline: Pipeline, failed: FailedDocument, statement: str
) -> None:
    assert isinstance(query(pipeline, statement), list)


def test_the_statement_on_failures_names_their_codes(
    pipeline: Pipeline, failed: FailedDocument
) -> None:
    [statement] = [each for each in STATEMENTS if "GROUP BY stage, code" in each]
    query(
        pipeline,
        "UPDATE webhook.dead_letters SET replayed_at = NULL WHERE id = $1",
        failed.letter_id,
    )
    [row] = [row for row in query(pipeline, statement) if row["code"] == failed.code]
    assert (row["stage"], row["documents"], row["example"]) == ("indexer", 1, "it [/broke]")
