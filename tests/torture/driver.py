"""Sends a scenario's traffic during its fault, waits for the end and checks it."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import asyncpg
import httpx
import msgspec
from redis.exceptions import RedisError

from tests.support.waiting import becomes_true
from tests.torture.checker import Findings, check
from tests.torture.clock import OWN_CLOCK, find_library
from tests.torture.counters import Counts, count, missing
from tests.torture.ledger import Ledger
from tests.torture.observation import Observer
from tests.torture.outside import outside_servers
from tests.torture.rig import Rig
from tests.torture.traffic import Request, Traffic, mixed, poisonous, requests

_ACCEPT = 60.0  # seconds until a request must have been accepted
_MORE = 8  # documents a second, after the scenario's own
_SCRUBBED = 20.0  # seconds until the scrubber must have come by twice


class Size(msgspec.Struct, frozen=True):
    """How much of a scenario: documents to send, over about so many seconds, and faults."""

    documents: int
    seconds: float
    faults: int
    poison: int = 0  # further documents, which must end as dead letters


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's line.

    `seconds` are those from the last fault until the end was clean or the wait was given up.
    """

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
    """One scenario in progress: its ledger, its traffic and what its faults need."""

    def __init__(self, rig: Rig, number: int, seed: int, size: Size, traffic: Traffic) -> None:
        self.rig = rig
        self.size = size
        self.traffic = traffic
        self.random = random.Random(f"{number} {seed}")
        self.ledger = Ledger()
        self.logs = rig.logs()
        self.observer = Observer(rig)
        self.site = f"s{number}-{seed}{rig.token}.example"
        self.faults = 0
        self.problems: list[str] = []
        self.statuses: list[int] = []  # of every answer to a request for indexing
        self.broken: list[str] = []  # requests that were sent and not answered
        self._seed = seed

    async def send(self, fault: asyncio.Task[None]) -> None:
        """Send the traffic, spread over the scenario's seconds, each request until it is accepted.

        One after another: the order of acceptance decides which text of a page is the last. Unless
        the traffic ends there, more is sent until the fault is done, so that work is in progress
        throughout the fault.
        """
        good = list(requests(self.site, self.size.documents, self._seed))
        await self.submit(
            mixed(good, list(poisonous(self.site, self.traffic, self.size.poison)), self._seed),
            self.size.seconds,
        )
        for number in itertools.count():
            if fault.done() or self.traffic.ends:
                return
            await self.submit(
                list(requests(f"{self.site}/more-{number}", _MORE, self._seed)), seconds=1.0
            )

    async def submit(self, traffic: Sequence[Request], seconds: float = 0.0) -> None:
        """Send these requests in order, spread over so many seconds, each until it is accepted."""
        started = time.monotonic()
        async with self.client() as client:
            for number, request in enumerate(traffic):
                await asyncio.sleep(
                    max(0.0, started + number * seconds / len(traffic) - time.monotonic())
                )
                self.ledger.accept(request, await self.post(client, request))

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.rig.environment['WEBHOOK_API_SECRET']}"}
        return httpx.AsyncClient(
            base_url=self.rig.url, headers=headers, timeout=20.0, trust_env=False
        )

    async def post(self, client: httpx.AsyncClient, request: Request) -> str:
        """Send the request to each ingest in turns until one accepts it; the job id."""
        deadline = time.monotonic() + _ACCEPT
        urls = itertools.cycle(self.rig.ingest_urls)
        while time.monotonic() < deadline:
            try:
                answer = await self.post_once(client, next(urls), request)
            except httpx.ConnectError:  # nothing was sent: a load balancer takes the next one
                await asyncio.sleep(0.05)
                continue
            except httpx.TransportError as error:
                self.broken.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.1)
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code == httpx.codes.ACCEPTED:
                return str(answer.json()["job_id"])
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise AssertionError(f"ingest answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(0.1)
        raise AssertionError(f"not accepted within {_ACCEPT:g} s: {request.key}")

    async def post_once(
        self, client: httpx.AsyncClient, url: str, request: Request
    ) -> httpx.Response:
        """The response of this ingest. Raises httpx.TransportError."""
        headers = {"Idempotency-Key": request.key}
        if request.delete is not None:
            return await client.delete(
                f"{url}/api/documents", params={"url": request.delete}, headers=headers
            )
        body: dict[str, Any] = {"documents": [msgspec.to_builtins(page) for page in request.pages]}
        if lane := request.lane or self.traffic.lane:
            body["lane"] = lane
        return await client.post(f"{url}/api/index/batch", json=body, headers=headers)


Fault = Callable[[Run], Coroutine[Any, Any, None]]


class Scenario(msgspec.Struct, frozen=True):
    """A fault and how much of it, and what must have come of it; a person reads `title`.

    `clean_within` is in seconds after the last fault. A scenario with settings (`environment`) gets
    a pipeline of its own. `verify` checks what the checker does not know, and returns what is
    wrong. `owns` names the servers that are killed, frozen or cut off: the scenario is not run if
    one of them is not the run's own.
    """

    title: str
    fault: Fault
    short: Size
    full: Size
    clean_within: float = 100.0
    minimum: Counts = Counts()
    traffic: Traffic = Traffic()
    environment: Mapping[str, str] = {}
    verify: "Verify | None" = None
    owns: frozenset[str] = frozenset()


def obstacle(scenario: Scenario) -> str | None:
    """Why the scenario cannot be run here, in words."""
    if foreign := sorted(scenario.owns & outside_servers().keys()):
        return f"it would hurt {', '.join(foreign)}"
    if OWN_CLOCK in scenario.environment and find_library() is None:
        return "there is no libfaketime for this machine"
    return None


async def run_scenario(rig: Rig, number: int, scenario: Scenario, seed: int, size: Size) -> Result:
    """Traffic and fault side by side, then the end state."""
    await rig.ready()
    run = Run(rig, number, seed, size, scenario.traffic)
    try:
        async with asyncio.TaskGroup() as group:
            fault = group.create_task(scenario.fault(run))
            group.create_task(run.send(fault))
    except* Exception as errors:
        run.problems += sorted(set(_told(errors)))
    last_fault = time.monotonic()
    findings = await settle(run, scenario.clean_within)
    seconds = time.monotonic() - last_fault
    counts = count(run.logs)
    run.problems += findings.problems + missing(scenario.minimum, counts)
    result = Result(
        scenario=number, seed=seed, documents=run.ledger.documents, faults=run.faults,
        redeliveries=counts.redeliveries,
        refused=counts.refused, lost=findings.lost, doubled=findings.doubled, dead=findings.dead,
        clean=not run.problems, seconds=round(seconds, 1), problems=run.problems,
    )  # fmt: skip
    if scenario.verify is None:
        return result
    problems = result.problems + await scenario.verify(run, result)
    return msgspec.structs.replace(result, clean=not problems, problems=problems)


def _told(error: BaseException) -> list[str]:
    """What went wrong, without the groups around it."""
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in _told(each)]
    return [f"{type(error).__name__}: {error}"]


Verify = Callable[[Run, Result], Coroutine[Any, Any, list[str]]]


async def settle(run: Run, seconds: float) -> Findings:
    """Wait until jobs are terminal, streams empty and dead consumers removed; what is wrong then.

    At most `seconds`. Hidden points may stay until the scrubber has made one pass.
    """
    deadline = time.monotonic() + seconds
    is_over, left_consumers = False, list[str]()
    while not is_over and time.monotonic() < deadline:
        # A server that was hurt last may still be starting.
        with contextlib.suppress(
            RedisError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError
        ):
            left_consumers = await run.observer.left_consumers()
            is_over = not (left_consumers or await run.observer.is_busy(run.site))
        await asyncio.sleep(0 if is_over else 0.3)
    findings = check(run.ledger.expected(), await run.observer.observe(run.site), left_consumers)
    if not (is_over and findings.doubled):
        return findings
    await _scrubbed(run)
    return check(run.ledger.expected(), await run.observer.observe(run.site), left_consumers)


async def _scrubbed(run: Run) -> None:
    """Return after a whole pass of the scrubber that began after the call, or after 20 s."""
    logs = run.rig.logs()

    def has_passed() -> bool:
        events = [event.get("event") for event in logs.events("indexer")]
        return events.count("Collection scrubbed") > 1  # the first may have begun before

    await becomes_true(has_passed, timeout=_SCRUBBED, every=0.2)
