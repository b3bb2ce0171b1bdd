"""A pipeline with stand-ins: real Redis, Postgres and services; TEI and Qdrant of a given speed."""

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec

from bench.pages import Page
from bench.processes import Usage, usages
from cli.commands.serve import apply_migrations
from cli.sample.webhooks import SIGNATURE_HEADER, events, sign
from local.fleet import ProcessRow
from local.ports import PortBook
from local.process import ChildProcess, Command
from local.program import LOOPBACK, http_probe
from local.servers import python_module
from local.services import SERVICES, Services
from local.stack import API_SECRET, WEBHOOK_SECRET, Stack

_SENDERS = 16  # webhooks in flight
_POLL_S = 0.05
_OPEN_JOBS = "SELECT EXISTS (SELECT FROM webhook.jobs WHERE finished_at IS NULL)"
_FORGET = """
CREATE FUNCTION webhook.forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER forget BEFORE INSERT ON webhook.embedding_cache
FOR EACH ROW EXECUTE FUNCTION webhook.forget()
"""
_ENDS = """
SELECT state, count(*) FROM webhook.job_items JOIN webhook.jobs USING (job_id)
WHERE jobs.crawl_id = $1 GROUP BY 1
"""


class StandIn:
    """A running stand-in."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def counts(self) -> dict[str, Any]:
        """Its counts since the last reset."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/counts") as answer:
            counts: dict[str, Any] = await answer.json()
            return counts

    async def slow_down(self, factor: float) -> None:
        """Make every batch take so many times as long."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/slowness?factor={factor}"),
        ):
            pass

    async def reset(self) -> None:
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/reset"):
            pass


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of indexing some pages."""

    seconds: float  # from the first webhook until the last document was searchable
    ends: dict[str, int]  # documents by final state
    rest_mb: dict[str, float]  # by service; memory before it
    usage: dict[str, Usage]  # by service; CPU of this round only

    @property
    def cpu_s(self) -> float:
        """The CPU seconds of all services."""
        return sum(used.cpu_s for used in self.usage.values())


class Pipeline:
    """A running pipeline."""

    def __init__(
        self, stack: Stack, services: Services, connection: "asyncpg.Connection[Any]"
    ) -> None:
        self.url = services.url
        self.connection = connection
        self.redis_url = services.environment["WEBHOOK_REDIS_URL"]
        self._stack = stack
        self._environment = {**stack.environ, **services.environment}

    async def keep_no_embeddings(self) -> None:
        """Clear the embedding cache, and keep it empty: each text is embedded again."""
        await self.connection.execute(_FORGET)

    def usage(self) -> dict[str, Usage]:
        """The usage by service, summed over replicas."""
        return usages(self.pids())

    def rows(self, service: str) -> list[ProcessRow]:
        """The processes of a service."""
        return [row for row in self._stack.fleet.rows if row.service == service]

    def pids(self) -> dict[str, list[int]]:
        """By service."""
        pids = defaultdict(list)
        for row in self._stack.fleet.rows:
            if row.service in SERVICES:
                pids[row.service].append(row.pid)
        return pids

    def signed(self, event: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a webhook."""
        body = msgspec.json.encode(event)
        return body, {SIGNATURE_HEADER: sign(body, self._environment[WEBHOOK_SECRET])}

    async def index(self, pages: Sequence[Page]) -> Round:
        """Send the webhooks of one crawl and wait until every document has ended."""
        before = self.usage()
        started = time.monotonic()
        crawl_id = await self.send(pages)
        await self.wait_idle()
        seconds = time.monotonic() - started
        ends = {row[0]: row[1] for row in await self.connection.fetch(_ENDS, crawl_id)}
        after = {
            service: msgspec.structs.replace(now, cpu_s=now.cpu_s - before[service].cpu_s)
            for service, now in self.usage().items()
        }
        rest_mb = {service: used.rss_mb for service, used in before.items()}
        return Round(seconds=seconds, ends=ends, rest_mb=rest_mb, usage=after)

    async def send(self, pages: Sequence[Page], lane: str = "normal") -> str:
        """Send the webhooks of one crawl, signed, one page each; returns its id."""
        deliveries = list(events(pages, lambda: str(uuid.uuid4())))
        waiting = iter([self.signed(event) for event in deliveries])
        url = f"/api/webhook/firecrawl?lane={lane}"

        async def sender() -> None:
            for body, headers in waiting:
                async with session.post(url, data=body, headers=headers) as answer:
                    answer.raise_for_status()

        async with self.session() as session:  # the lane is in the query, which is not signed
            await asyncio.gather(*(sender() for _ in range(_SENDERS)))
        return str(deliveries[0]["id"])

    async def index_each(self, pages: Sequence[Page], lane: str = "high") -> float:
        """Send each page alone, all in parallel; returns seconds until all are searchable."""

        async def index(page: Page) -> None:
            body = {"url": page["url"], "markdown": page["markdown"], "lane": lane}
            async with session.post("/api/index", json=body) as answer:
                answer.raise_for_status()
                job_id = (await answer.json())["job_id"]
            status = "queued"
            while status in {"queued", "running"}:
                async with session.get(f"/api/jobs/{job_id}", params={"wait": "30"}) as answer:
                    status = (await answer.json())["status"]
            if status != "succeeded":
                raise AssertionError(f"{page['url']} ended as {status}")

        async with self.session() as session:
            started = time.monotonic()
            await asyncio.gather(*(index(page) for page in pages))
            return time.monotonic() - started

    def session(self) -> aiohttp.ClientSession:
        """A session with the API secret. The caller closes it."""
        headers = {"Authorization": f"Bearer {self._environment[API_SECRET]}"}
        return aiohttp.ClientSession(self.url, headers=headers)

    async def is_busy(self) -> bool:
        """Whether any job is open."""
        return bool(await self.connection.fetchval(_OPEN_JOBS))

    async def wait_idle(self) -> None:
        """Return when no job is open."""
        while await self.is_busy():  # noqa: ASYNC110 - other processes end the jobs
            await asyncio.sleep(_POLL_S)

    @contextlib.asynccontextmanager
    async def another(self, service: str, settings: Mapping[str, str]) -> AsyncIterator[str]:
        """Start one more process of a service with these settings; returns its URL.

        Its usage is not counted.
        """
        with directory() as path:
            port = str(PortBook(path / "ports.json").take(service))
            environment = {**self._environment, f"WEBHOOK_{service.upper()}_PORT": port, **settings}
            command = Command(
                name=service, argv=python_module(service), env=environment, log_path=path / "log"
            )
            child = ChildProcess(command)
            try:
                await child.wait_until_ready(http_probe(f"http://{LOOPBACK}:{port}/readyz"), 60.0)
                yield f"http://{LOOPBACK}:{port}"
            finally:
                await child.stop()


@contextlib.asynccontextmanager
async def stand_in(kind: str, *arguments: str) -> AsyncIterator[StandIn]:
    """Run a module of bench.stand_ins in a process of its own."""
    with directory() as path:
        port = PortBook(path / "ports.json").take(kind)
        child = ChildProcess(
            Command(
                name=f"{kind}-stand-in",
                argv=python_module(f"bench.stand_ins.{kind}", "--port", str(port), *arguments),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
                log_path=path / "log",
            )
        )
        url = f"http://{LOOPBACK}:{port}"
        try:
            await child.wait_until_ready(http_probe(f"{url}/counts"), 30.0)
            yield StandIn(url)
        finally:
            await child.stop()


@contextlib.asynccontextmanager
async def running_pipeline(
    settings: Mapping[str, str], replicas: Mapping[str, int] | None = None
) -> AsyncIterator[Pipeline]:
    """A new pipeline without warm-up; `settings` may name TEI and Qdrant, else embedded ones."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WEBHOOK_", "TEI_"))
    }
    with directory() as path:
        async with Stack(
            path / "data", {**environ, "WEBHOOK_LOG_LEVEL": "warning", **settings}
        ) as stack:
            await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
            connection = await asyncpg.connect(stack.environment["WEBHOOK_DATABASE_URL"])
            try:
                async with Services(stack, replicas=replicas) as services:
                    yield Pipeline(stack, services, connection)
            finally:
                await connection.close()


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A temporary directory that the user of Postgres can enter."""
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path
