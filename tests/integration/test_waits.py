"""What the stages wait for, from the worker's report to the text that a waiting command prints."""

import contextlib
import datetime as dt
import json
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.inspection.watch import read_waits
from shared.pipeline.stages import StageName
from shared.pipeline.waits import WAITS
from shared.runtime.waits import WaitReporter
from shared.service.health import Wait, WaitState
from tests.integration.test_services import running
from tests.support.local_stack import bare_environ
from tests.support.pipeline import MILLSTREAM, Pipeline, frozen, kill
from tests.support.stage_harness import Servers
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(180)

NOON = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)


class Command:
    """A command of millstream that runs while a test changes things under it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def told(self) -> str:
        """What it printed on stderr so far."""
        return " ".join(self.lines)

    def end(self) -> Any:
        """Its JSON, once it has ended with 0."""
        assert self.process.stdout is not None
        answer = self.process.stdout.read()
        status = self.process.wait(timeout=100)
        self.join()
        assert status == 0, self.told
        return json.loads(answer)

    def join(self) -> None:
        """Wait until all of stderr was read; the process must have ended."""
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines += line.split()


@contextlib.contextmanager
def started(pipeline: Pipeline, *arguments: str) -> Iterator[Command]:
    with subprocess.Popen(
        [*MILLSTREAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=bare_environ(**pipeline.env),
    ) as process:  # fmt: skip
        command = Command(process)
        try:
            yield command
        finally:
            process.kill()
            command.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pages that were never indexed."""
    for n in range(5):
        (tmp_path / f"{n}.md").write_text(f"# Page {n}\n\nAbout {uuid.uuid4()}.\n")
    return tmp_path


def health(pipeline: Pipeline) -> Any:
    return httpx.get(
        f"{pipeline.env['MILLSTREAM_URL']}/health", timeout=10.0, trust_env=False
    ).json()


def running_jobs(pipeline: Pipeline) -> list[str]:
    jobs = pipeline.http.get("/api/jobs", params={"limit": 1000}).json()["jobs"]
    return [job["job_id"] for job in jobs if job["status"] in {"queued", "running"}]


def test_a_waiting_command_survives_a_restart_of_ingest_and_indexes_everything_once(
    pipeline: Pipeline, folder: Path
) -> None:
    first = pipeline.pids("ingest")[0]
    with started(pipeline, "index", str(folder), "--json") as command:
        with frozen(pipeline.pids("tei")):
            block_until(
                lambda: running_jobs(pipeline), timeout=60, description="the job to be accepted"
            )
            kill(first)
            block_until(
                lambda: "answers again" in command.told,
                timeout=60,
                description="ingest to answer again",
            )
        summary = command.end()
    assert (summary["succeeded"], len(summary["jobs"])) == (5, 1)
    assert "Retrying for up to 120 s." in command.told


def test_a_waiting_command_names_the_server_that_does_not_answer(
    pipeline: Pipeline, folder: Path
) -> None:
    with started(pipeline, "index", str(folder), "--json") as command:
        with frozen(pipeline.pids("tei")):
            block_until(
                lambda: "embedder: waiting for tei" in command.told,
                timeout=60,
                description="TEI to be named",
            )
        assert command.end()["succeeded"] == 5
    assert command.told.count("embedder: waiting for tei since") == 1


def test_a_worker_that_cannot_reach_qdrant_says_so_and_ingest_as_well(pipeline: Pipeline) -> None:
    def reported() -> Any:
        pipeline.index([{"url": f"https://example.com/{uuid.uuid4()}", "markdown": "Text."}])
        return health(pipeline)["stages"]["indexer"]["waits"]

    with running(pipeline, "indexer", WEBHOOK_QDRANT_URL="http://127.0.0.1:9") as url:
        [wait] = block_until(reported, timeout=60, description="the indexer's wait")
        own = httpx.get(f"{url}/health", timeout=10.0, trust_env=False).json()
        assert own["status"] == "degraded"
        assert own["services"]["qdrant"].startswith("unhealthy: unreachable since ")
    assert (wait["dependency"], wait["state"], wait["workers"]) == ("qdrant", "unreachable", 1)
    block_until(
        lambda: not health(pipeline)["stages"]["indexer"]["waits"],
        timeout=30,
        description="its report to expire",
    )


@pytest.mark.asyncio(loop_scope="session")
async def test_a_report_is_there_while_it_is_renewed_and_dead_workers_are_dropped(
    servers: Servers,
) -> None:
    found = [Wait(dependency="tei", state=WaitState.UNREACHABLE, since=NOON, reason="refused")]

    async def look() -> list[Wait]:
        return found

    reporters = [WaitReporter(servers.redis, StageName.EMBEDDER, name, look) for name in "ab"]
    for reporter in reporters:
        await reporter.report()
    assert {report.consumer for report in await read_waits(servers.redis)} == {"a", "b"}
    assert 0 < await servers.redis.pttl(WAITS) <= 10_000
    await servers.redis.hset(WAITS, "dead", "1000 {}")  # stored in 1970
    await reporters[0].report()
    assert set(await servers.redis.hkeys(WAITS)) == {b"a", b"b"}
    found = []
    for reporter in reporters:
        await reporter.report()
    assert not await servers.redis.exists(WAITS)
