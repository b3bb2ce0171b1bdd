"""A process is killed at every failpoint in turn, while documents pass it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx

from shared.pipeline.failpoints import POINTS
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.service.clients import redis_command
from tests.support.waiting import becomes_true, wait_until
from tests.torture.driver import Run, Scenario, Size, settle
from tests.torture.service import REFUSED_TEXT, tripping_text
from tests.torture.traffic import Page, Request, Traffic, page, requests

_HIT = 20.0  # seconds until a process must have reached a failpoint
_TRIES = 4  # by chance, no work may reach it
_CLEAN = 60.0
_UNREADABLE = 2  # entries
_ASKS = 20  # times each ingest process


async def kill_at_failpoints(run: Run) -> None:
    """For each failpoint: arm it, send documents that reach it, check the kill and the end."""
    points = list(POINTS)
    run.random.shuffle(points)
    for point in points[: run.size.faults]:
        await _kill_at(run, point)


async def _kill_at(run: Run, point: str) -> None:
    run.faults += 1
    for number in range(_TRIES):
        if await _Case(run, point, number).play():
            return
    run.problems.append(f"no process reached {point}")


class _Case:
    """One try at one failpoint."""

    def __init__(self, run: Run, point: str, number: int) -> None:
        self._run = run
        self._point = point
        self._part, self._moment = point.split(".")
        self._service = "ingest" if self._part == "dispatch" else self._part
        self._site = f"{run.site}/{self._part}-{self._moment}-{number}"
        self._logs = run.logs

    async def play(self) -> bool:
        """Whether a process reached it and died."""
        run = self._run
        self._logs = run.rig.logs()
        prepare, provoke = _SPECIAL.get(self._moment, (_nothing, _nothing))
        await prepare(self)
        await run.rig.arm(self._service, *self._orders())
        await run.submit(
            list(requests(self._site, run.size.documents, seed=run.random.randrange(10**6)))
        )
        await provoke(self)
        was_hit = await self._was_hit()
        await self.settle()
        await run.rig.ready()
        return was_hit

    def _orders(self) -> list[str]:
        """Both processes get it, once others died with the same entry as often as it needs."""
        here = f"{self._point}:kill@1"
        return [f"{self._part}.handled:kill@1"] * _EARLIER_KILLS.get(self._moment, 0) + [here, here]

    async def _was_hit(self) -> bool:
        def is_hit() -> bool:
            events = self._logs.events(self._service)
            return any(event.get("point") == self._point for event in events)

        return await becomes_true(is_hit, timeout=_HIT, every=0.1)

    async def settle(self) -> None:
        findings = await settle(self._run, _CLEAN)
        self._run.problems += [f"{self._point}: {problem}" for problem in findings.problems]

    async def send(self, *texts: str, poison: bool = False) -> None:
        """Documents with these texts, one in each request."""
        pages = [
            Page(f"https://{self._site}/{number}", text) for number, text in enumerate(texts, 10**6)
        ]
        await self._run.submit(
            [
                Request(key=f"{each.url} {self._moment}", pages=(each,), poison=poison)
                for each in pages
            ]
        )

    async def send_again(self) -> None:
        """Texts that are indexed already."""
        await self.settle()
        numbers = range(10**7, 10**7 + 4)
        for time in ("first", "again"):
            sent = [
                Request(key=f"{self._site}-{n}-{time}", pages=(page(self._site, n, 0),))
                for n in numbers
            ]
            await self._run.submit(sent)
            await self.settle()

    async def trip(self) -> None:
        await self.send(*[f"# Page {n}\n\n{tripping_text(self._part)}\n" for n in range(4)])

    async def send_refused(self) -> None:
        await self.send(*[f"# Page {n}\n\n{REFUSED_TEXT}\n" for n in range(4)], poison=True)
        await self.settle()

    async def replay(self) -> None:
        """Send the replay until it is answered: the first process that gets it dies."""
        async with self._run.client() as client:
            for url in self._run.rig.ingest_urls * _ASKS:
                try:
                    answer = await client.post(
                        f"{url}/api/dead-letters/replay", json={"code": "refused"}
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.5)
                    continue
                answer.raise_for_status()
                return
        self._run.problems.append("the replay was never answered")

    async def _is_quiet(self) -> bool:
        return not any(map(any, (await self._run.observer.backlog()).values()))

    async def add_unreadable(self) -> None:
        """Unreadable entries; their raw dead letters are counted and dropped."""
        stream = StageName(self._part).stream(Lane.NORMAL)
        async with redis_command(self._run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
            for number in range(_UNREADABLE):
                await redis.xadd(stream, {"h": f"unreadable {number}", "b": ""})
        await self._was_hit()
        await self._run.rig.ready()
        async with self._run.client() as client:
            await wait_until(self._is_quiet, timeout=_CLEAN, description="empty streams")
            answer = await client.delete("/api/dead-letters", params={"code": "malformed"})
            if answer.json()["dropped"] != _UNREADABLE:
                self._run.problems.append(f"{_UNREADABLE} unreadable entries are {answer.text}")


async def _nothing(_: _Case) -> None:
    """Ordinary traffic reaches the failpoint."""


# An entry is reclaimed after one crash, and split after two: both processes die with it.
_EARLIER_KILLS = {"reclaimed": 1, "splitting": 4, "split": 4}
_Step = Callable[[_Case], Awaitable[None]]
# What is done before the failpoint is armed, and with it armed.
_SPECIAL: Mapping[str, tuple[_Step, _Step]] = {
    "unchanged": (_nothing, _Case.send_again),
    "postponed": (_nothing, _Case.trip),
    "replayed": (_Case.send_refused, _Case.replay),
    "dead_lettered": (_nothing, _Case.add_unreadable),
}

SCENARIOS = {
    2: Scenario(
        "kill -9 at every failpoint", kill_at_failpoints, Size(20, 1, 2), Size(50, 1, len(POINTS)),
        traffic=Traffic(ends=True),
    ),
}  # fmt: skip
