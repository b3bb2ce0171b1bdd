"""The commands of docs/operations.md as they stand there: millstream's own, and those of redis-cli
and curl.
"""

import re
import shlex
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from cli.failures import Exit
from cli.main import app
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.streams.groups import create_groups
from tests.support.documented import DOCS, commands
from tests.support.failed_documents import failed_document
from tests.support.pipeline import Pipeline
from tests.support.stage_harness import Servers

PAGE = (DOCS / "operations.md").read_text()
OURS = commands("operations.md")
REDIS = re.findall(r'`redis-cli -u "\$WEBHOOK_REDIS_URL" ([^`]+)`', PAGE)
CURL = re.findall(r"`(curl [^`]+)`", PAGE)


@pytest.fixture(scope="module")
def words(pipeline: Pipeline) -> Iterator[dict[str, str]]:
    """What the placeholders stand for: a job of a page that was indexed, a crawl, two documents
    that failed.
    """
    url = "https://example.com/hello"
    job_id = pipeline.index([{"url": url, "markdown": "# Hello"}])
    crawl_id = f"crawl-{uuid.uuid4()}"
    page = {"markdown": "# Alone", "metadata": {"url": f"https://{uuid.uuid4()}.example.org/"}}
    for job in (job_id, *pipeline.crawl([page], crawl_id)):
        pipeline.finished(job)
    failed = [failed_document(pipeline) for _ in range(2)]
    yield {
        "JOB_ID": job_id, "ID": job_id, "CRAWL_ID": crawl_id, "STAGE": "embedder", "URL": url, "ENTRY_ID": "1-1",
        "17": str(failed[0].letter_id), "18": str(failed[1].letter_id),
    }  # fmt: skip
    for document in failed:
        pipeline.http.delete(
            "/api/dead-letters", params={"code": document.code, "replayed": "true"}
        )


@pytest.mark.parametrize("line", OURS)
def test_a_documented_command_of_millstream_runs(
    pipeline: Pipeline, words: dict[str, str], line: str
) -> None:
    arguments = [words.get(word, word) for word in shlex.split(line)[1:]]
    result = CliRunner().invoke(app, arguments, env=pipeline.env)
    problem = result.exception
    if (
        "ENTRY_ID" in line
    ):  # there is no such entry; what they do to one is shown in test_operators_routes.py
        assert "no consumer of the embedder holds" in str(problem)
    else:
        # Other tests of this pipeline send documents that fail, and leave some that wait.
        ends = {Exit.OK, Exit.WARNED, Exit.FAILED} if line == "millstream doctor" else {Exit.OK}
        assert result.exit_code in ends, (result.output, problem)
        failed = [each for each in result.output.splitlines() if each.startswith("fail ")]
        assert [each.split()[1] for each in failed] in ([], ["documents.failed"]), failed


@pytest.mark.parametrize("line", CURL)
def test_a_documented_request_is_answered(
    pipeline: Pipeline, words: dict[str, str], line: str
) -> None:
    for name, value in pipeline.env.items():
        line = line.replace(f"${name}", value)
    options = shlex.split(re.sub(r"\bID\b", words["ID"], line))
    name, value = options[options.index("-H") + 1].split(": ")
    answer = httpx.get(options[-1], headers={name: value}, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) & {"job_id", "dead_letters", "queued"}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_documented_redis_commands_show_what_hangs(servers: Servers) -> None:
    stage, redis = StageName.EMBEDDER, servers.redis
    stream = stage.stream(Lane.NORMAL)
    await create_groups(redis, stage)
    ids: list[Any] = [
        await redis.xadd(stream, {"h": f'{{"n": {n}}}', "b": b"\xff"}) for n in range(3)
    ]
    await redis.xreadgroup(stage, "fresh", {stream: ">"}, count=2)
    await redis.xclaim(stream, stage, "gone", 0, [ids[0]], idle=60_001, justid=True)
    asked = {line.replace(f"'{stream}'", "KEY"): await raw(redis, line) for line in REDIS}
    assert asked["XLEN KEY"] == 3
    assert [fields[1] for _, fields in asked["XRANGE KEY - + COUNT 10"]] == [
        b'{"n": 0}',
        b'{"n": 1}',
        b'{"n": 2}',
    ]
    assert [row[0] for row in asked["XPENDING KEY embedder - + 10"]] == ids[:2]
    assert [row[0] for row in asked["XPENDING KEY embedder IDLE 60000 - + 10"]] == ids[:1]
    [group] = [fields_of(row) for row in asked["XINFO GROUPS KEY"]]
    assert (group[b"lag"], group[b"pending"]) == (1, 2)
    consumers = [fields_of(row) for row in asked["XINFO CONSUMERS KEY embedder"]]
    assert {row[b"name"]: row[b"pending"] for row in consumers} == {b"fresh": 1, b"gone": 1}


async def raw(redis: Redis, line: str) -> Any:
    """The reply as redis-cli gets it: redis-py makes something of it only if the command's name is
    text.
    """
    return await redis.execute_command(*(word.encode() for word in shlex.split(line)))  # type: ignore[no-untyped-call]


def fields_of(row: list[Any]) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))


def test_every_kind_of_command_is_found_in_the_page() -> None:
    assert (len(REDIS), len(CURL)) == (6, 3)
    assert len(OURS) > 15
    for asked in (
        "LLEN",
        "LRANGE",
        "HGETALL",
    ):  # what is known from a queue in a list, with ours in the same row
        assert re.search(rf"^\|.*`{asked} rq:.*`(redis-cli|curl) ", PAGE, re.MULTILINE)
