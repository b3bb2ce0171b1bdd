"""Faults that several scenarios share, and how they are timed to affect work in progress."""

import asyncio
import contextlib

from redis.exceptions import RedisError

from shared.pipeline.stages import StageName
from tests.support.waiting import becomes_true, wait_until
from tests.torture.driver import Run

_PATIENCE = 30.0  # seconds of looking for work, or of waiting for acceptance longer than planned


async def meet_work(run: Run, *stages: StageName) -> None:
    """Return as soon as one of the stages has pending entries.

    It is a problem if there are none for long: a fault without work in progress shows nothing.

    Any stage will do if none is named.
    """
    streams = {stream for stage in stages or StageName for stream in stage.streams}

    async def has_work() -> bool:
        with contextlib.suppress(
            RedisError, OSError
        ):  # it may still be starting after the last fault
            backlog = await run.observer.backlog()
            return any(backlog[stream][1] for stream in streams & backlog.keys())
        return False

    if not await becomes_true(has_work, timeout=_PATIENCE, every=0.02):
        run.problems.append("no entry was in progress when a fault was done")


async def pause_between(run: Run) -> None:
    """Sleep so that the scenario's faults are spread over its traffic."""
    await asyncio.sleep(run.size.seconds / (run.size.faults + 1))


async def accepted(run: Run, share: float) -> None:
    """Return when ingest has accepted this share of the scenario's documents."""
    await wait_until(
        lambda: run.ledger.documents >= share * run.size.documents,
        timeout=run.size.seconds + _PATIENCE,
        description=f"{share:.0%} of the traffic",
    )


async def lose_replies(run: Run, part: str, share: float) -> None:
    proxy = run.rig.proxies[part]
    dropped = proxy.dropped
    run.rig.background.run(proxy.lose_replies(share))
    try:
        await asyncio.sleep(run.size.seconds)
    finally:
        run.rig.background.run(proxy.heal())
    run.faults += proxy.dropped - dropped
