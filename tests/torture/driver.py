"""Sends a scenario's traffic while its fault is done, waits for the end and has it checked."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import httpx
import msgspec
from redis.exceptions import RedisError

from tests.torture.checker import Findings, check
from tests.torture.counters import Counters
from tests.torture.ledger import Ledger
from tests.torture.observation import Observer
from tests.torture.rig import Rig
from tests.torture.traffic import Request, requests

_END = 100.0  # seconds for everything to become terminal after the last fault
_ACCEPT = 60.0  # seconds until a request must have been accepted


class Size(msgspec.Struct, frozen=True):
    """How much of a scenario: documents to send, over about so many seconds, and faults."""

    documents: int
    seconds: float
    faults: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's line."""

    scenario: int
    seed: int
    documents: int
    faults: int
    redeliveries: int
    refused: int
    lost: int
    doubled: int
    dead: int
    clean: bool
    seconds: float
    problems: list[str] = []


class Run:
    """One scenario under way: its ledger, its traffic and what its faults need."""

    def __init__(self, rig: Rig, scenario: int, seed: int, size: Size) -> None:
        self.rig = rig
        self.size = size
        self.random = random.Random(f"{scenario} {seed}")
        self.ledger = Ledger()
        self.site = f"s{scenario}-{seed}.example"
        self.faults = 0
        self.problems: list[str] = []
        self.statuses: list[int] = []  # of every answer to a request for indexing
        self._seed = seed

    async def send(self) -> None:
        """Send the whole traffic, spread over the scenario's seconds, each request until it is accepted.

        One after another: the order of acceptance decides which text of a page is the last.
        """
        traffic = list(requests(self.site, self.size.documents, self._seed))
        pause = self.size.seconds / len(traffic)
        started = time.monotonic()
        async with self.client() as client:
            for number, request in enumerate(traffic):
                await asyncio.sleep(max(0.0, started + number * pause - time.monotonic()))
                self.ledger.accept(request, await self.post(client, request))

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.rig.environment['WEBHOOK_API_SECRET']}"}
        return httpx.AsyncClient(base_url=self.rig.url, headers=headers, timeout=20.0, trust_env=False)

    async def post(self, client: httpx.AsyncClient, request: Request) -> str:
        """Repeat the request until it is accepted, as a sender does; the job id."""
        deadline = time.monotonic() + _ACCEPT
        while time.monotonic() < deadline:
            try:
                answer = await self._post_once(client, request)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code == httpx.codes.ACCEPTED:
                return str(answer.json()["job_id"])
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise AssertionError(f"ingest answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(0.1)
        raise AssertionError(f"not accepted within {_ACCEPT:g} s: {request.key}")

    async def _post_once(self, client: httpx.AsyncClient, request: Request) -> httpx.Response:
        headers = {"Idempotency-Key": request.key}
        if request.delete is not None:
            return await client.delete("/api/documents", params={"url": request.delete}, headers=headers)
        body: dict[str, Any] = {"documents": [msgspec.to_builtins(page) for page in request.pages]}
        return await client.post("/api/index/batch", json=body, headers=headers)


Fault = Callable[[Run], Coroutine[Any, Any, None]]


async def run_scenario(rig: Rig, scenario: int, fault: Fault, seed: int, size: Size) -> Result:
    """Traffic and fault side by side, then the end state."""
    started = time.monotonic()
    run = Run(rig, scenario, seed, size)
    counters = Counters(rig)
    await counters.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(run.send())
        group.create_task(fault(run))
    observer = Observer(rig.environment)
    findings = await settle(observer, run)
    await counters.stop()
    problems = run.problems + findings.problems
    return Result(
        scenario=scenario, seed=seed, documents=run.ledger.documents, faults=run.faults,
        redeliveries=counters.redeliveries, refused=counters.refused, lost=findings.lost, doubled=findings.doubled,
        dead=findings.dead, clean=not problems,
        seconds=round(time.monotonic() - started, 1), problems=problems,
    )  # fmt: skip


async def settle(observer: Observer, run: Run) -> Findings:
    """Wait until the site's jobs are terminal and the streams are empty, or too long; what is wrong then."""
    deadline = time.monotonic() + _END
    while time.monotonic() < deadline:
        # A server that was hurt last may still be starting.
        with contextlib.suppress(RedisError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if not await observer.is_busy(run.site):
                break
        await asyncio.sleep(0.3)
    return check(run.ledger.expected(), await observer.observe(run.site))
