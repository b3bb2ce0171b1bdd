"""Each service by itself, against servers that the environment names."""

import contextlib
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import httpx
import pytest

from local.ports import PortBook
from tests.support.ingest_server import frozen
from tests.support.inspection import query
from tests.support.local_stack import bare_environ, children, enterable_directory
from tests.support.pipeline import MILLSTREAM, Pipeline, outside_servers
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(240)

MODULES = ["ingest", "chunker", "embedder", "indexer", "indexer.search_api"]


@contextlib.contextmanager
def running(pipeline: Pipeline, module: str, **settings: str) -> Iterator[str]:
    """Run `python -m module` until the block ends; it must end with status 0 on SIGTERM."""
    service = module.partition(".")[0]
    with enterable_directory() as directory:
        port = PortBook(directory / "ports.json").take(module)
        environ = bare_environ(
            **{**pipeline.env, f"WEBHOOK_{service.upper()}_PORT": str(port), **settings}
        )
        log = directory / "service.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module], env=environ, stdout=output, stderr=output
            )
            url = f"http://127.0.0.1:{port}"
            try:
                block_until(
                    lambda: process.poll() is not None or is_ready(url),
                    timeout=60,
                    description=f"{module} to be ready",
                )
                assert process.poll() is None, log.read_text()
                yield url
            finally:
                process.send_signal(signal.SIGTERM)
                status = process.wait(timeout=40)
        assert status == 0, log.read_text()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert lines[-1]["event"] == "Stopped"


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("module", MODULES)
def test_a_service_runs_alone_and_ends_when_it_is_told(pipeline: Pipeline, module: str) -> None:
    with running(pipeline, module) as url:
        assert (
            httpx.get(f"{url}/health", timeout=10.0, trust_env=False).json()["status"] == "healthy"
        )


def test_another_embedder_that_starts_while_documents_flow_shares_the_work(
    pipeline: Pipeline,
) -> None:
    run = uuid.uuid4()
    documents = [
        {
            "url": f"https://example.com/{run}/{n}",
            "markdown": f"# {n}\n\n" + f"Words about {run} {n}. " * 30,
        }
        for n in range(40)
    ]
    job_id = pipeline.index(documents)
    with running(pipeline, "embedder", WEBHOOK_LOG_LEVEL="info"):
        # More work as long as it takes until the newcomer has had its share.
        def shared() -> bool:
            pipeline.finished(
                pipeline.index([{**d, "url": f"{d['url']}/{uuid.uuid4()}"} for d in documents[:10]])
            )
            rows = query(
                pipeline,
                "SELECT DISTINCT stages #>> '{embedder,worker}' AS w FROM webhook.job_items WHERE url LIKE $1",
                f"https://example.com/{run}/%",
            )  # fmt: skip
            return len({row["w"] for row in rows if row["w"]}) >= 3

        block_until(shared, timeout=120, description="work done by a third embedder")
    assert {result["status"] for result in pipeline.finished(job_id)["results"]} == {"indexed"}


def test_the_search_api_alone_answers_like_the_indexer(pipeline: Pipeline) -> None:
    word = f"axolotl{uuid.uuid4().hex[:8]}"
    url = f"https://example.com/{word}"
    pipeline.finished(pipeline.index([{"url": url, "markdown": f"The {word} regrows."}]))
    with running(pipeline, "indexer.search_api") as search_url:
        headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}
        answer = httpx.post(
            f"{search_url}/api/search",
            json={"query": word},
            headers=headers,
            timeout=30.0,
            trust_env=False,
        )
        assert answer.json()["results"][0]["url"] == url
        assert (
            httpx.post(
                f"{search_url}/api/search", json={"query": word}, trust_env=False
            ).status_code
            == 401
        )
    forwarded = pipeline.http.post("/api/search", json={"query": word})
    assert forwarded.headers["Content-Type"] == answer.headers["Content-Type"]
    assert "total;dur=" in forwarded.headers["Server-Timing"]


def test_while_postgres_hangs_search_answers_with_the_newest_version_and_says_so(
    pipeline: Pipeline,
) -> None:
    word = f"axolotl{uuid.uuid4().hex[:8]}"
    pipeline.finished(
        pipeline.index([{"url": f"https://example.com/{word}", "markdown": f"The {word} regrows."}])
    )

    def search() -> tuple[list[str], bool]:
        answer = (
            pipeline.http.post("/api/search", json={"query": word, "mode": "keyword"})
            .raise_for_status()
            .json()
        )
        return [result["text"] for result in answer["results"]], answer["degraded"]

    assert search() == ([f"The {word} regrows."], False)
    (postmaster,) = pipeline.pids("postgres")
    with frozen([postmaster, *children(postmaster)]):
        assert search() == ([f"The {word} regrows."], True)
    block_until(
        lambda: search() == ([f"The {word} regrows."], False),
        timeout=60,
        description="search that asks Postgres again",
    )


def test_the_keyword_index_in_memory_follows_what_is_indexed_in_every_search_process(
    pipeline: Pipeline,
) -> None:
    word = f"axolotl{uuid.uuid4().hex[:8]}"
    url = f"https://example.com/{word}"
    settings = {"WEBHOOK_KEYWORD_INDEX": "rank-bm25"}
    headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}

    def texts(search_url: str) -> list[str]:
        request = {"query": word, "mode": "keyword"}
        answer = httpx.post(
            f"{search_url}/api/search", json=request, headers=headers, timeout=30.0, trust_env=False
        )
        return [result["text"] for result in answer.json()["results"]]

    pipeline.finished(pipeline.index([{"url": url, "markdown": f"The {word} regrows."}]))
    with (
        running(pipeline, "indexer.search_api", **settings) as first,
        running(pipeline, "indexer.search_api", **settings) as second,
    ):
        assert texts(first) == texts(second) == [f"The {word} regrows."]
        pipeline.finished(pipeline.index([{"url": url, "markdown": f"The {word} sleeps."}]))
        assert texts(first) == texts(second) == [f"The {word} sleeps."]
        job = pipeline.http.delete("/api/documents", params={"url": url}).json()["job_id"]
        pipeline.finished(job)
        assert texts(first) == texts(second) == []


def test_weak_secrets_stop_the_start(pipeline: Pipeline) -> None:
    environ = bare_environ(
        **{**pipeline.env, "WEBHOOK_API_SECRET": "short", "WEBHOOK_INGEST_PORT": "0"}
    )
    result = subprocess.run(
        [sys.executable, "-m", "ingest"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 78
    assert "WEBHOOK_API_SECRET is too short" in result.stdout


GIVING_UP = """
from chunker.settings import Settings
from shared.runtime.process import run_process

async def serve(process, settings):
    process.give_up()
    await process.stop.wait()

run_process("chunker", Settings, serve)
"""


def test_a_process_that_gives_up_ends_so_that_it_is_started_again(pipeline: Pipeline) -> None:
    result = subprocess.run(
        [sys.executable, "-c", GIVING_UP], env=bare_environ(**pipeline.env), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 70, result.stdout
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["status"]) == ("Stopped", 70)


def test_the_sample_crawl_runs_through_and_is_found() -> None:
    with enterable_directory() as directory, outside_servers(directory) as given:
        result = subprocess.run(
            [*MILLSTREAM, "up", "--sample", "--once", "--data-dir", str(directory / "data")],
            env=bare_environ(**given), capture_output=True, text=True, timeout=220, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["documents"] == report["succeeded"] >= 30
    assert report["failed"] == 0
    assert report["chunks"] > report["documents"]
    assert [set(query) for query in report["queries"]] == [{"query", "top_url", "score"}] * 3
