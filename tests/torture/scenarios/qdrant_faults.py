"""Qdrant that loses replies, is unreachable, or is killed."""

import asyncio

from shared.pipeline.stages import StageName
from tests.torture.driver import Run, Scenario, Size
from tests.torture.faults import lose_replies, meet_work, pause_between


async def lose_qdrant_replies(run: Run) -> None:
    """Lose 30% of Qdrant's replies, then cut its link for half as long."""
    proxy = run.rig.proxies["qdrant"]
    await lose_replies(run, "qdrant", 0.3)
    run.rig.background.run(proxy.cut())
    try:
        await asyncio.sleep(run.size.seconds / 2)
    finally:
        run.rig.background.run(proxy.heal())
    run.faults += 1


async def kill_qdrant(run: Run) -> None:
    """kill -9 Qdrant while an indexer holds entries, again and again."""
    for _ in range(run.size.faults):
        await pause_between(run)
        await meet_work(run, StageName.INDEXER)
        await run.rig.kill(run.rig.pids("qdrant")[0])
        run.faults += 1


SCENARIOS = {
    15: Scenario(
        "Qdrant's replies lost, then an outage", lose_qdrant_replies,
        Size(60, 6, 0), Size(500, 60, 0),
    ),
    27: Scenario(
        "kill -9 of Qdrant", kill_qdrant, Size(120, 6, 2), Size(1500, 60, 10),
        owns=frozenset({"qdrant"}),
    ),
}  # fmt: skip
