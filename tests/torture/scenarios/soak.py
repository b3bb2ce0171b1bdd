"""Faults of all kinds for long, one after another, drawn by the seed; and growth of memory."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

from bench.processes import usage
from shared.service.clients import redis_command
from tests.support.local_stack import is_alive
from tests.support.tei_stand_in import Fault
from tests.torture.counters import STAGES
from tests.torture.driver import Run, Scenario, Size
from tests.torture.rig import LEASE

_LASTS = 1.0  # seconds, of faults that last
_LOOK = 1.0  # seconds between two looks at the memory
_FEW = 120  # looks; until then caches and pools still fill
_GROWTH = 1.1  # of a process' memory, from the second quarter of the time to the last

_Fault = Callable[["_Soak"], Awaitable[None]]


class _Soak:
    """The faults. They spare one process of each service, whose memory is watched."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rig = run.rig
        self.spared = [run.rig.pids(service)[0] for service in (*STAGES, "ingest")]

    def victim(self) -> int:
        return self.run.random.choice(
            [pid for pid in self.rig.pids(*STAGES, "ingest") if pid not in self.spared]
        )

    async def kill_service(self) -> None:
        await self.rig.kill(self.victim())

    async def freeze_service(self) -> None:
        frozen = self.rig.freeze([self.victim()])
        await asyncio.sleep(1.5 * LEASE)
        self.rig.thaw(frozen)

    async def restart_service(self) -> None:
        await self.rig.restart(self.victim())

    async def kill_server(self) -> None:
        await self.rig.kill(self.rig.pids(self.run.random.choice(["redis", "postgres"]))[0])

    async def empty_redis(self) -> None:
        async with redis_command(self.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
            await redis.flushall()

    async def disturb_a_link(self) -> None:
        proxy = self.run.random.choice(list(self.rig.proxies.values()))
        for disturbance in (
            proxy.lose_replies(0.1),
            self.run.random.choice([proxy.cut, proxy.black_hole])(),
        ):
            self.rig.background.run(disturbance)
            await asyncio.sleep(_LASTS)
        self.rig.background.run(proxy.heal())

    async def spoil_tei(self) -> None:
        self.rig.tei.fail_always(*_SPOILT, share=0.5)
        await asyncio.sleep(_LASTS)
        self.rig.tei.heal()


_SPOILT = (Fault.OVERLOADED, Fault.UNAVAILABLE, Fault.NULL, Fault.CUT)
_FAULTS: Sequence[_Fault] = (
    _Soak.kill_service, _Soak.freeze_service, _Soak.restart_service, _Soak.kill_server,
    _Soak.empty_redis,
    _Soak.disturb_a_link, _Soak.spoil_tei,
)  # fmt: skip


async def do_anything(run: Run) -> None:
    """One fault after another, of any kind, with a pause in which work goes on."""
    soak = _Soak(run)
    memory: dict[int, list[float]] = {pid: [] for pid in soak.spared}
    looking = asyncio.create_task(_look_at(memory))
    try:
        for _ in range(run.size.faults):
            await asyncio.sleep(run.size.seconds / run.size.faults)
            await run.random.choice(_FAULTS)(soak)
            await run.rig.ready()
            run.faults += 1
    finally:
        looking.cancel()
        await asyncio.wait({looking})
    run.problems += [
        f"process {pid} died of what was done to others: {run.logs.last_words(pid)}"
        for pid in soak.spared
        if not is_alive(pid)
    ]
    run.problems += grown(memory)


async def _look_at(memory: Mapping[int, list[float]]) -> None:
    while True:
        for pid, looks in memory.items():
            looks.append(usage(pid).rss_mb)
        await asyncio.sleep(_LOOK)


def grown(memory: Mapping[int, Sequence[float]]) -> list[str]:
    """The processes whose memory (MB, by pid, at equal distances) keeps growing, in words."""
    problems = []
    for pid, looks in memory.items():
        quarter = len(looks) // 4
        early, late = (
            statistics.median(looks[n * quarter : (n + 1) * quarter] or [0.0]) for n in (1, 3)
        )
        if len(looks) >= _FEW and late > _GROWTH * early:
            problems.append(f"process {pid} grew from {early:.0f} to {late:.0f} MB")
    return problems


SCENARIOS = {
    25: Scenario(
        "anything, for long", do_anything, Size(150, 8, 4), Size(4000, 240, 40),
        environment={"WEBHOOK_MAX_DELIVERIES": "1000"},  # here it is never the document
        owns=frozenset({"redis", "postgres", "qdrant"}),
    ),
}  # fmt: skip
