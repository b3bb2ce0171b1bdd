"""Qdrant that loses replies and goes away."""

import asyncio

from tests.torture.driver import Run, Scenario, Size
from tests.torture.faults import lose_replies


async def lose_qdrant_replies(run: Run) -> None:
    """Lose 30% of Qdrant's replies, then all contact for half as long."""
    proxy = run.rig.proxies["qdrant"]
    await lose_replies(run, "qdrant", 0.3)
    run.rig.background.run(proxy.cut())
    try:
        await asyncio.sleep(run.size.seconds / 2)
    finally:
        run.rig.background.run(proxy.heal())
    run.faults += 1


SCENARIOS = {
    15: Scenario("Qdrant's replies lost, then an outage", lose_qdrant_replies, Size(60, 6, 0), Size(500, 60, 0)),
}
