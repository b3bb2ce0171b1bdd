"""The whole pipeline as a user starts it: `millstream up` in a process, reached by its files."""

import asyncio
import contextlib
import gzip
import hmac
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from shared.service.settings import QdrantSettings
from tests.support.local_stack import bare_environ, enterable_directory
from tests.support.outside import outside
from tests.support.qdrant_process import (
    drop_collections,
    qdrant_settings,
    running_qdrant,
    shared_qdrant,
)
from tests.support.tei_server import TEI_KEY, tei_server
from tests.support.waiting import block_until

MILLSTREAM = [sys.executable, "-c", "from cli.main import main; main()"]
_COLLECTION_SETTING = "WEBHOOK_QDRANT_COLLECTION"
DEFAULT_COLLECTION = "pulse_docs"
PAGES_FILE = Path(__file__).parent.parent / "data" / "crawl" / "pages.jsonl.gz"

T = TypeVar("T")


class Pipeline:
    """A running `millstream up`: its directory, its environment, its API.

    `collection` is that of documents that name none.
    """

    def __init__(self, data_dir: Path, collection: str = DEFAULT_COLLECTION) -> None:
        self.data_dir = data_dir
        self.collection = collection
        self.env = read_env(data_dir / "stack.env")
        self.http = httpx.Client(
            base_url=self.env["MILLSTREAM_URL"],
            headers={"Authorization": f"Bearer {self.env['WEBHOOK_API_SECRET']}"},
            timeout=70.0,
            trust_env=False,
        )

    @property
    def qdrant(self) -> QdrantSettings:
        """How to reach the pipeline's Qdrant."""
        return qdrant_settings(
            self.env["WEBHOOK_QDRANT_URL"], self.env.get("WEBHOOK_QDRANT_API_KEY", "")
        )

    @property
    def processes(self) -> list[dict[str, Any]]:
        """The rows of services.json."""
        rows: list[dict[str, Any]] = json.loads((self.data_dir / "services.json").read_text())
        return rows

    def pids(self, service: str) -> list[int]:
        return [row["pid"] for row in self.processes if row["service"] == service]

    def webhook(self, event: dict[str, Any]) -> dict[str, Any]:
        """Post a signed webhook; the answer."""
        body = json.dumps(event).encode()
        signature = (
            "sha256=" + hmac.digest(self.env["WEBHOOK_SECRET"].encode(), body, "sha256").hex()
        )
        response = httpx.post(
            f"{self.env['MILLSTREAM_URL']}/api/webhook/firecrawl", content=body, timeout=30.0,
            headers={"X-Firecrawl-Signature": signature, "Content-Type": "application/json"},
        )  # fmt: skip
        assert response.status_code in {200, 202}, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def crawl(
        self, pages: Sequence[dict[str, Any]], crawl_id: str, per_event: int = 1
    ) -> list[str]:
        """Send the pages as crawl.page events; the job ids."""
        jobs = []
        for start in range(0, len(pages), per_event):
            data = [
                {"markdown": p["markdown"], "metadata": p["metadata"]}
                for p in pages[start : start + per_event]
            ]
            event = {
                "success": True,
                "type": "crawl.page",
                "id": crawl_id,
                "webhookId": str(uuid.uuid4()),
                "data": data,
            }
            jobs.append(self.webhook(event)["job_id"])
        self.end_crawl(crawl_id)
        return jobs

    def end_crawl(self, crawl_id: str, kind: str = "crawl.completed") -> None:
        """Have the crawl say how it ended."""
        self.webhook(
            {
                "success": True,
                "type": kind,
                "id": crawl_id,
                "webhookId": str(uuid.uuid4()),
                "data": [],
            }
        )

    def index(self, documents: Sequence[Any]) -> str:
        """Post documents to /api/index/batch; the job id."""
        # json.dumps escapes what is not ASCII, lone surrogates too, as JavaScript would.
        body = json.dumps({"documents": list(documents), "lane": "normal"})
        response = self.http.post("/api/index/batch", content=body)
        assert response.status_code == 202, response.text
        return str(response.json()["job_id"])

    def finished(self, job_id: str, timeout: float = 120.0) -> dict[str, Any]:
        """The job with its results, once it is terminal."""
        deadline = time.monotonic() + timeout
        while True:
            job: dict[str, Any] = self.http.get(f"/api/jobs/{job_id}", params={"wait": "30"}).json()
            if job["status"] not in {"queued", "running"}:
                return job
            assert time.monotonic() < deadline, f"not finished within {timeout:g} s: {job}"

    def targets(self) -> list[str]:
        """The names of all collections that the pipeline has made in Qdrant."""

        async def fetch() -> list[str]:
            connection = await asyncpg.connect(self.env["WEBHOOK_DATABASE_URL"])
            try:
                rows = await connection.fetch("SELECT target FROM webhook.targets")
            finally:
                await connection.close()
            return [row["target"] for row in rows]

        return asyncio.run(fetch())

    def search(self, query: str, **request: Any) -> list[dict[str, Any]]:
        response = self.http.post("/api/search", json={"query": query, **request})
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line against this pipeline."""
        return subprocess.run(
            [*MILLSTREAM, *arguments],
            env=bare_environ(**self.env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def pages() -> list[dict[str, Any]]:
    """210 real, short documentation pages: `url`, `markdown`, `metadata`."""
    return [json.loads(line) for line in gzip.decompress(PAGES_FILE.read_bytes()).splitlines()]


def read_env(path: Path) -> dict[str, str]:
    """The variables of a stack.env file."""
    return dict(word.split("=", 1) for word in shlex.split(path.read_text()))


@contextlib.contextmanager
def running_pipeline(*options: str, **settings: str) -> Iterator[Pipeline]:
    """Run `millstream up` until the block ends; it must end with status 0.

    It has its own data directory and ports, and TEI and Qdrant as the run was given them.
    """
    with enterable_directory() as directory, outside_servers(directory) as given:
        settings = given | settings
        data_dir = directory / "data"
        log = directory / "up.log"
        with log.open("wb") as output:
            up = subprocess.Popen(
                [*MILLSTREAM, "up", "--data-dir", str(data_dir), *options],
                stdout=output, stderr=output,
                env=bare_environ(**settings), cwd=directory,
            )  # fmt: skip
            try:
                block_until(
                    lambda: (data_dir / "services.json").exists() or up.poll() is not None,
                    timeout=90,
                    description="the start",
                )
                assert up.poll() is None, log.read_text()
                pipeline = Pipeline(data_dir, settings.get(_COLLECTION_SETTING, DEFAULT_COLLECTION))
                yield pipeline
                pipeline.http.close()
                targets = pipeline.targets() if outside("qdrant").is_shared else []
            finally:
                up.send_signal(signal.SIGTERM)
                status = up.wait(timeout=90)
        assert status == 0, log.read_text()[-4000:]
        drop_collections(targets)


@contextlib.contextmanager
def outside_servers(directory: Path) -> Iterator[dict[str, str]]:
    """The settings of a pipeline for the TEI and Qdrant that the run was given; empty without any.

    Servers that were given as a command run until the end of the block.
    """
    settings: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if outside("tei").is_given:
            settings["WEBHOOK_TEI_URL"] = stack.enter_context(tei_server(directory))
            settings["WEBHOOK_TEI_API_KEY"] = "" if outside("tei").is_shared else TEI_KEY
        if outside("qdrant").is_given:
            is_shared = outside("qdrant").is_shared
            qdrant = (
                shared_qdrant()
                if is_shared
                else stack.enter_context(running_qdrant(directory / "qdrant"))
            )
            settings["WEBHOOK_QDRANT_URL"] = qdrant.qdrant_url
            settings["WEBHOOK_QDRANT_API_KEY"] = qdrant.qdrant_api_key
            if is_shared:
                settings[_COLLECTION_SETTING] = f"{DEFAULT_COLLECTION}_{secrets.token_hex(4)}"
        yield settings


@contextlib.contextmanager
def replicated_pipeline(**more: str) -> Iterator[Pipeline]:
    """Run a pipeline with two replicas of every stage, short leases and JSON logs."""
    settings = {
        "WEBHOOK_LEASE": "3s",
        "WEBHOOK_LEASE_RENEWAL": "500ms",
        "WEBHOOK_LOG_LEVEL": "info",
        "WEBHOOK_LOG_FORMAT": "json",
    } | more
    with running_pipeline(
        "--replicas", "ingest=2,chunker=2,embedder=2,indexer=2", **settings
    ) as pipeline:
        yield pipeline


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Freeze processes, so that their work is still to be done while a test looks at it."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
