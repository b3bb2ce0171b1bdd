"""Stage processes that are killed or frozen while they work, or that a document kills."""

import asyncio

import asyncpg

from shared.pipeline.stages import StageName
from tests.support.waiting import wait_until
from tests.torture.counters import STAGES, Counts
from tests.torture.driver import Result, Run, Scenario, Size
from tests.torture.rig import LEASE
from tests.torture.service import deadly_text
from tests.torture.traffic import Traffic
from tests.torture.victims import janitors, seize

_FROZEN = 3 * LEASE
_STOP = "Failpoint reached"
_COME_BY = 60.0  # seconds until a process must have reached a failpoint
_MAX_DELIVERIES = 5
_TIDY = 40.0  # seconds until dead consumers must be removed

_DEADLIEST = "SELECT coalesce(max(deliveries), 0) FROM webhook.dead_letters WHERE url LIKE $1"


async def kill_stages(run: Run) -> None:
    """kill -9 a process of a random stage, with work in hand, again and again."""
    for _ in range(run.size.faults):
        await asyncio.sleep(run.size.seconds / run.size.faults)
        await run.rig.kill(await seize(run, [run.random.choice(STAGES)]))
        run.faults += 1


async def freeze_workers(run: Run) -> None:
    """Freeze a worker of each stage for three leases, while others take its entries over.

    Every second time it is frozen just before a hand-over, which must then be refused.
    """
    for number in range(run.size.faults // len(STAGES)):
        freeze = _freeze_at_hand_over if number % 2 == 0 else _freeze_anywhere
        await asyncio.gather(*(freeze(run, stage) for stage in STAGES))


async def _freeze_anywhere(run: Run, stage: str) -> None:
    await _stay_frozen(run, await seize(run, [stage]))


async def _freeze_at_hand_over(run: Run, stage: str) -> None:
    logs = run.rig.logs()
    await run.rig.arm(stage, f"{stage}.recorded:stop@1")
    frozen = await wait_until(
        lambda: [event for event in logs.events(stage) if event.get("event") == _STOP],
        timeout=_COME_BY,
        description=f"the {stage} frozen at its failpoint",
    )
    await _stay_frozen(run, int(frozen[0]["instance"].split(":")[-2]))


async def _stay_frozen(run: Run, pid: int) -> None:
    try:
        await asyncio.sleep(_FROZEN)
    finally:
        run.rig.thaw([pid])
    run.faults += 1


async def let_poison_kill(run: Run) -> None:
    """The faults are in the traffic: documents that kill each stage process that handles them."""
    run.faults = run.size.poison


async def was_given_up_in_time(run: Run, _: Result) -> list[str]:
    """Whether no poison was delivered more often than it may be."""
    connection = await asyncpg.connect(run.rig.environment["WEBHOOK_DATABASE_URL"])
    try:
        deliveries = await connection.fetchval(_DEADLIEST, f"https://{run.site}/%")
    finally:
        await connection.close()
    return [f"a document was delivered {deliveries} times"] if deliveries > _MAX_DELIVERIES else []


async def roll_restarts(run: Run) -> None:
    """Restart every process of every service, one after another."""
    for _ in range(run.size.faults):
        for service in (*STAGES, "ingest"):
            for pid in run.rig.pids(service):
                await run.rig.restart(pid)
        run.faults += 1


async def was_unnoticed(run: Run, result: Result) -> list[str]:
    """Whether nothing was delivered again and no request failed."""
    failed = [f"a request failed: {error}" for error in run.broken]
    failed += [f"ingest answered {status}" for status in run.statuses if status >= 500]
    if result.redeliveries:
        failed.append(f"{result.redeliveries} entries were delivered again")
    return failed


async def crash_beside_janitors(run: Run) -> None:
    """kill -9 process after process, while janitors at once delete consumers that hold nothing."""
    async with janitors(run):
        for _ in range(run.size.faults):
            await run.rig.kill(await seize(run, STAGES))
            run.faults += 1


async def left_few_consumers(run: Run, _: Result) -> list[str]:
    """Whether dead consumers are removed: at most two more are left than there are processes."""
    live = len(run.rig.pids(*STAGES))
    for _second in range(int(_TIDY)):
        consumers = sum([len(await run.observer.consumers(stage)) for stage in StageName])
        if consumers <= live + 2:
            return []
        await asyncio.sleep(1)
    return [f"{consumers} consumers are left of {live} processes"]


SCENARIOS = {
    1: Scenario(
        "kill -9 of random stages", kill_stages, Size(80, 6, 3), Size(2000, 60, 30),
        clean_within=60, minimum=Counts(redeliveries=1),
    ),
    3: Scenario(
        "workers frozen for three leases", freeze_workers, Size(100, 14, 3), Size(1000, 130, 30),
        minimum=Counts(redeliveries=1, refused=1),
    ),
    17: Scenario(
        "documents that kill their worker", let_poison_kill,
        Size(30, 3, 0, 2), Size(1980, 60, 0, 20),
        clean_within=300, traffic=Traffic(poison=tuple(map(deadly_text, STAGES))),
        verify=was_given_up_in_time,
    ),
    22: Scenario(
        "rolling restarts", roll_restarts, Size(100, 20, 1), Size(2000, 120, 5),
        verify=was_unnoticed,
    ),
    23: Scenario(
        "crashes beside janitors", crash_beside_janitors, Size(60, 6, 6), Size(2000, 100, 100),
        # No document is at fault here.
        clean_within=300, environment={"WEBHOOK_MAX_DELIVERIES": "1000"},
        minimum=Counts(redeliveries=1), verify=left_few_consumers,
    ),
}  # fmt: skip
