"""A flood in the high lane over a long queue in the low one: neither may starve the other."""

import asyncio
import itertools
import statistics
import time

import asyncpg
import httpx
import msgspec

from tests.torture.driver import Result, Run, Scenario, Size
from tests.torture.traffic import Request, Traffic, page, requests

# Times the ordinary traffic: sent at once before the flood, and refilled to half of that.
_QUEUE = 4
# Each sends its next document when the one before is indexed: a flood that never stops.
_SENDERS = 64
_LOW_SHARE = 0.08  # of what is indexed meanwhile; the weights are 6 : 1
_SLOWER = 2.0  # times what a high document takes without the queue
_FEW = 300  # documents; a 95th percentile of fewer is noise
# By the lane that a job was sent in: its items may have travelled in the one above.
_INDEXED = """
SELECT j.lane, count(*) FROM webhook.job_items i JOIN webhook.jobs j USING (job_id)
WHERE i.domain = $1 AND i.finished_at BETWEEN now() - make_interval(secs => $2) AND now()
GROUP BY j.lane
"""
_QUEUED_LOW = (
    "SELECT count(*) FROM webhook.job_items WHERE domain = $1 AND lane = 'low' AND state = 'queued'"
)


class Flood:
    """Documents of the high lane from all senders; `seconds` has how long each took."""

    def __init__(self, run: Run, first: int) -> None:
        self.seconds: list[float] = []
        self._run = run
        self._numbers = itertools.count(first)

    async def last(self, seconds: float) -> None:
        """Send for so long, and return when all that was sent is indexed."""
        end = time.monotonic() + seconds
        async with self._run.client() as client, asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(self._send_until(end, client))

    async def _send_until(self, end: float, client: httpx.AsyncClient) -> None:
        while (started := time.monotonic()) < end:
            each = page(self._run.site, next(self._numbers), 0)
            request = Request(key=each.url, pages=(each,), lane="high")
            job_id = await self._run.post(client, request)
            self._run.ledger.accept(request, job_id)
            status = "queued"
            while status in {"queued", "running"}:
                answer = await client.get(f"/api/jobs/{job_id}", params={"wait": "10"})
                status = msgspec.json.decode(answer.content)["status"]
            self.seconds.append(time.monotonic() - started)


async def flood_high(run: Run) -> None:
    """Fill the low lane, flood the high one, and flood it again when the low one is empty."""
    await _queue_low(run, 0, _QUEUE * run.size.documents)
    flood, alone = Flood(run, 10**6), Flood(run, 2 * 10**6)
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_low(run, group.create_task(flood.last(run.size.seconds))))
    run.faults += 1
    run.problems += await _low_was_starved(run)
    while await run.observer.is_busy(run.site):  # noqa: ASYNC110 - the servers give no event
        await asyncio.sleep(0.2)
    await alone.last(run.size.seconds / 2)
    run.problems += _high_was_slow(flood.seconds, alone.seconds)


async def _queue_low(run: Run, number: int, documents: int) -> None:
    await run.submit(
        list(requests(f"{run.site}/queue-{number}", documents, run.random.randrange(10**6)))
    )


async def _keep_low(run: Run, flood: asyncio.Task[None]) -> None:
    """Refill the low lane's queue as long as the flood lasts, however fast the machine is."""
    connection = await asyncpg.connect(run.rig.environment["WEBHOOK_DATABASE_URL"])
    try:
        number = 0
        while not flood.done():
            if await connection.fetchval(_QUEUED_LOW, run.site) < _QUEUE / 2 * run.size.documents:
                number += 1
                await _queue_low(run, number, run.size.documents)
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def _low_was_starved(run: Run) -> list[str]:
    connection = await asyncpg.connect(run.rig.environment["WEBHOOK_DATABASE_URL"])
    try:
        rows = await connection.fetch(_INDEXED, run.site, run.size.seconds)
    finally:
        await connection.close()
    indexed: dict[str, int] = {row["lane"]: row["count"] for row in rows}
    share = indexed.get("low", 0) / sum(indexed.values())
    return (
        [f"the low lane had {share:.1%} of what was indexed: {indexed}"]
        if share < _LOW_SHARE
        else []
    )


def _high_was_slow(flood: list[float], alone: list[float]) -> list[str]:
    if min(len(flood), len(alone)) < _FEW:
        return []
    slow, usual = (statistics.quantiles(seconds, n=20)[-1] for seconds in (flood, alone))
    if slow <= _SLOWER * usual:
        return []
    return [
        f"95% of the high documents took up to {slow:.2f} s, without the low ones {usual:.2f} s"
    ]


async def was_accepted_at_once(run: Run, _: Result) -> list[str]:
    """Whether everything was accepted at once."""
    return [
        f"ingest answered {status}" for status in run.statuses if status != httpx.codes.ACCEPTED
    ]


SCENARIOS = {
    21: Scenario(
        "a flood of high over a queue of low", flood_high, Size(240, 6, 0), Size(2000, 60, 0),
        clean_within=300, traffic=Traffic(lane="low", ends=True), verify=was_accepted_at_once,
    ),
}  # fmt: skip
