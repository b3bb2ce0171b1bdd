"""Postgres frozen and killed under many senders: requests are accepted or refused in time."""

import asyncio
import uuid
from collections.abc import Awaitable, Sequence

import httpx
import msgspec

from tests.torture.driver import Result, Run, Scenario, Size
from tests.torture.faults import meet_work, pause_between
from tests.torture.traffic import Request, page

_SENDERS = 20  # more than ingest has connections to Postgres
_REFUSED_WITHIN = 3.0  # seconds
_READS = ("/api/jobs", f"/api/jobs/{uuid.UUID(int=0)}", "/api/dead-letters")
_OWNS = frozenset({"postgres"})


class Answer(msgspec.Struct, frozen=True):
    """A response while Postgres was frozen."""

    what: str
    status: int
    seconds: float
    has_retry_after: bool


class Watch:
    """Times responses until `thaw`, by the event loop's clock; later ones count only if late."""

    def __init__(self, client: httpx.AsyncClient, thaw: float) -> None:
        self.client = client
        self.thaw = thaw
        self.answers: list[Answer] = []

    async def note(self, what: str, request: Awaitable[httpx.Response]) -> httpx.Response:
        """The response, noted with the time that it took."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        response = await request
        seconds = loop.time() - asked
        if loop.time() < self.thaw or seconds > _REFUSED_WITHIN:
            self.answers.append(
                Answer(what, response.status_code, seconds, "Retry-After" in response.headers)
            )
        return response


async def freeze_postgres(run: Run) -> None:
    """Freeze all processes of Postgres for half of the time, and time every response meanwhile."""
    await asyncio.sleep(run.size.seconds / 4)
    await meet_work(run)
    async with (
        run.client() as client
    ):  # one for all: to make twenty takes a second, which would count
        frozen = run.rig.freeze(run.rig.postgres_processes())
        thaw = asyncio.get_running_loop().call_later(run.size.seconds / 2, run.rig.thaw, frozen)
        watch = Watch(client, thaw.when())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_SENDERS):
                    group.create_task(_insist(run, watch, number))
                for path in _READS:
                    group.create_task(_read(watch, path))
        finally:
            run.rig.thaw(frozen)
    run.faults += 1
    run.problems += _too_late(watch.answers)


async def kill_postgres(run: Run) -> None:
    """kill -9 Postgres during many requests, each of which is repeated until it is accepted."""
    for number in range(run.size.faults):
        await pause_between(run)
        async with run.client() as client, asyncio.TaskGroup() as group:
            for request in _burst(run, number):
                group.create_task(_send(run, client, request))
            await meet_work(run)
            await run.rig.kill(run.rig.pids("postgres")[0])
        run.faults += 1


async def refused(run: Run, _: Result) -> list[str]:
    """Whether ingest refused requests that it could not commit."""
    if httpx.codes.SERVICE_UNAVAILABLE in run.statuses:
        return []
    return ["ingest refused nothing while Postgres was unavailable"]


async def _insist(run: Run, watch: Watch, number: int) -> None:
    """Send a page until it is accepted."""
    request = Request(key=f"{run.site}-insist-{number}", pages=(page(run.site, 10**6 + number, 0),))
    url = run.rig.ingest_urls[number % len(run.rig.ingest_urls)]
    while True:
        response = await watch.note(
            "POST /api/index/batch", run.post_once(watch.client, url, request)
        )
        if response.status_code == httpx.codes.ACCEPTED:
            run.ledger.accept(request, response.json()["job_id"])
            return
        run.statuses.append(response.status_code)
        await asyncio.sleep(0.1)


async def _read(watch: Watch, path: str) -> None:
    while asyncio.get_running_loop().time() < watch.thaw:
        await watch.note(f"GET {path}", watch.client.get(path))
        await asyncio.sleep(0.1)


def _too_late(answers: Sequence[Answer]) -> list[str]:
    """Every response while Postgres is frozen must be a 503 with Retry-After, in time."""
    problems = [
        f"{a.what} was answered with {a.status}"
        f"{'' if a.has_retry_after else ' without Retry-After'}"
        f" after {a.seconds:.2f} s while Postgres was frozen"
        for a in answers
        if a.status != httpx.codes.SERVICE_UNAVAILABLE
        or not a.has_retry_after
        or a.seconds > _REFUSED_WITHIN
    ]
    asked = {answer.what for answer in answers}
    wanted = {"POST /api/index/batch", *(f"GET {path}" for path in _READS)}
    return problems + [
        f"{what} was not answered while Postgres was frozen" for what in sorted(wanted - asked)
    ]


def _burst(run: Run, number: int) -> list[Request]:
    """Requests for pages of their own, so that the order of their acceptance does not matter."""
    first = 10**6 + number * _SENDERS
    return [
        Request(key=f"{run.site}-burst-{each}", pages=(page(run.site, each, 0),))
        for each in range(first, first + _SENDERS)
    ]


async def _send(run: Run, client: httpx.AsyncClient, request: Request) -> None:
    run.ledger.accept(request, await run.post(client, request))


SCENARIOS = {
    11: Scenario(
        "Postgres frozen", freeze_postgres,
        Size(100, 9, 1), Size(1000, 40, 1), verify=refused, owns=_OWNS,
    ),
    12: Scenario(
        "kill -9 of Postgres", kill_postgres, Size(120, 6, 1), Size(1000, 50, 10), owns=_OWNS
    ),
}  # fmt: skip
