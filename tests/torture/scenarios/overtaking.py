"""Workers that continue with an old version when a newer one is indexed already."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from tests.support.waiting import wait_until
from tests.torture.counters import Counts
from tests.torture.driver import Run, Scenario, Size
from tests.torture.rig import LEASE
from tests.torture.traffic import Request, page

_MOMENTS = ("begun", "upserted", "committed", "handled")
_PAGES = 6  # so that the indexer that is to freeze gets one
_RACES = 10  # for each frozen indexer
_COME_BY = 60.0  # seconds until the indexer must have reached its failpoint


async def overtake_indexers(run: Run) -> None:
    """Freeze an indexer that holds old versions, index newer ones, thaw it; then random races."""
    for number in range(run.size.faults):
        await _overtake(run, number)
    async with _short_freezes(run):
        for number in range(run.size.faults * _RACES):
            await run.submit(_race(run, number))


async def _overtake(run: Run, number: int) -> None:
    pages = range(10**6 + number * _PAGES, 10**6 + (number + 1) * _PAGES)
    logs = run.rig.logs()
    await run.rig.arm("indexer", f"indexer.{_MOMENTS[number % len(_MOMENTS)]}:stop@1")
    await run.submit([_revision(run, each, 0, 0) for each in pages])
    stops = await wait_until(
        lambda: [e for e in logs.events("indexer") if e.get("event") == "Failpoint reached"],
        timeout=_COME_BY,
        description="an indexer frozen at its failpoint",
    )
    try:
        await run.submit([_revision(run, each, 1, 1) for each in pages])
        await asyncio.sleep(
            2 * LEASE
        )  # what it held is taken over, and the newer versions are through
    finally:
        run.rig.thaw([int(stops[0]["instance"].split(":")[-2])])
    run.faults += 1


def _race(run: Run, number: int) -> Sequence[Request]:
    """One page that changes and changes back, or goes, at once."""
    at = 2 * 10**6 + number
    first, second = (_revision(run, at, revision, revision) for revision in (0, 1))
    last = [
        _revision(run, at, 0, 2),
        Request(key=f"{run.site}-{at}-gone", delete=page(run.site, at, 0).url),
    ]
    return [first, second, *run.random.choice([[], last[:1], last[1:], last[::-1]])]


def _revision(run: Run, number: int, revision: int, time: int) -> Request:
    return Request(key=f"{run.site}-{number}-{time}", pages=(page(run.site, number, revision),))


@contextlib.asynccontextmanager
async def _short_freezes(run: Run) -> AsyncIterator[None]:
    """Freeze random indexers for up to one and a half leases, one after another."""

    async def freeze() -> None:
        while True:
            frozen = run.rig.freeze([run.random.choice(run.rig.pids("indexer"))])
            try:
                await asyncio.sleep(run.random.uniform(0, 1.5 * LEASE))
            finally:
                run.rig.thaw(frozen)
            await asyncio.sleep(run.random.uniform(0, LEASE / 4))

    freezing = asyncio.create_task(freeze())
    try:
        yield
    finally:
        freezing.cancel()
        await asyncio.wait({freezing})


SCENARIOS = {
    16: Scenario(
        "indexers overtaken while they stand still", overtake_indexers,
        Size(20, 4, 1), Size(500, 120, 50),
        clean_within=300, minimum=Counts(redeliveries=1),
    ),
}  # fmt: skip
