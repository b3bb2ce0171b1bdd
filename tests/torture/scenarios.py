"""The scenarios by number: what is done to the pipeline while documents go through it. Numbers are stable."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec
from redis.asyncio import Redis

from shared.streams import StageName
from tests.torture.driver import Fault, Run, Size
from tests.torture.traffic import Request, page

STAGES = ("chunker", "embedder", "indexer")
_AOF_TAIL = 64 * 1024  # bytes
_FROZEN = 9.0  # seconds; three times the lease


class Scenario(msgspec.Struct, frozen=True):
    """A fault and how much of it; a person reads `title`."""

    title: str
    fault: Fault
    short: Size
    full: Size


async def kill_stages(run: Run) -> None:
    """kill -9 a random process of a random stage, again and again."""
    for _ in range(run.size.faults):
        await asyncio.sleep(run.size.seconds / run.size.faults)
        await run.rig.kill(run.random.choice(run.rig.pids(*STAGES)))
        run.faults += 1


async def freeze_workers(run: Run) -> None:
    """Freeze a worker for three leases while its work is taken over, then let it go on."""
    for number in range(run.size.faults):
        frozen = run.rig.freeze([run.random.choice(run.rig.pids(STAGES[number % len(STAGES)]))])
        try:
            await asyncio.sleep(_FROZEN)
        finally:
            run.rig.thaw(frozen)
        run.faults += 1


async def kill_redis(run: Run) -> None:
    for _ in range(run.size.faults):
        await asyncio.sleep(run.size.seconds / run.size.faults)
        await run.rig.kill(run.rig.pids("redis")[0])
        run.faults += 1


async def lose_redis_tail(run: Run) -> None:
    """kill -9 Redis and cut the end off its log before it is started again, as a power loss does."""
    for _ in range(run.size.faults):
        await asyncio.sleep(run.size.seconds / run.size.faults)
        await run.rig.kill(run.rig.pids("redis")[0])
        run.rig.cut_redis_log(_AOF_TAIL)
        run.faults += 1


async def flush_redis(run: Run) -> None:
    async with _redis(run) as redis:
        for _ in range(run.size.faults):
            await asyncio.sleep(run.size.seconds / (run.size.faults + 1))
            await redis.flushall()
            run.faults += 1


async def destroy_groups_and_streams(run: Run) -> None:
    """Destroy a stage's groups, or delete its streams, under the workers."""
    async with _redis(run) as redis:
        for number in range(run.size.faults):
            await asyncio.sleep(run.size.seconds / run.size.faults)
            stage = list(StageName)[number % len(StageName)]
            for stream in stage.streams:
                if number % 2:
                    await redis.delete(stream)
                elif await redis.exists(stream):
                    await redis.xgroup_destroy(stream, stage)
            run.faults += 1


async def lose_redis_replies(run: Run) -> None:
    """Lose 5% of Redis' replies: what was asked was done, and nobody knows."""
    await _lose_replies(run, "redis", 0.05)


async def lose_qdrant_replies(run: Run) -> None:
    """Lose 30% of Qdrant's replies, then all contact for a third of the time."""
    proxy = run.rig.proxies["qdrant"]
    await _lose_replies(run, "qdrant", 0.3)
    run.rig.background.run(proxy.cut())
    try:
        await asyncio.sleep(run.size.seconds / 3)
    finally:
        run.rig.background.run(proxy.heal())
    run.faults += 1


async def freeze_postgres(run: Run) -> None:
    """Freeze Postgres with all its processes."""
    await asyncio.sleep(run.size.seconds / 4)
    frozen = run.rig.freeze(run.rig.postgres_processes())
    try:
        await asyncio.sleep(run.size.seconds / 2)
    finally:
        run.rig.thaw(frozen)
    run.faults += 1
    if 503 not in run.statuses:
        run.problems.append("ingest did not refuse while Postgres was frozen")


async def kill_postgres(run: Run) -> None:
    for _ in range(run.size.faults):
        await asyncio.sleep(run.size.seconds / run.size.faults)
        await run.rig.kill(run.rig.pids("postgres")[0])
        run.faults += 1


async def repeat_requests(run: Run) -> None:
    """Send requests five times at once, and once more when they are through: always the same job."""
    async with run.client() as client:
        for number in range(run.size.faults):
            request = Request(key=f"{run.site}-same-{number}", pages=(page(run.site, 10**6 + number, 0),))
            jobs = set(await asyncio.gather(*(run.post(client, request) for _ in range(5))))
            run.ledger.accept(request, next(iter(jobs)))
            await client.get(f"/api/jobs/{next(iter(jobs))}", params={"wait": "15"})
            jobs.add(await run.post(client, request))
            if len(jobs) != 1:
                run.problems.append(f"one request became {len(jobs)} jobs")
            run.faults += 1


async def _lose_replies(run: Run, part: str, share: float) -> None:
    proxy = run.rig.proxies[part]
    dropped = proxy.dropped
    run.rig.background.run(proxy.lose_replies(share))
    try:
        await asyncio.sleep(run.size.seconds)
    finally:
        run.rig.background.run(proxy.heal())
    run.faults += proxy.dropped - dropped


@contextlib.asynccontextmanager
async def _redis(run: Run) -> AsyncIterator[Redis]:
    async with Redis.from_url(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
        yield redis


SCENARIOS: Mapping[int, Scenario] = {
    1: Scenario("kill -9 of random stages", kill_stages, Size(150, 10, 5), Size(2000, 60, 30)),
    3: Scenario("workers frozen for three leases", freeze_workers, Size(100, 9, 1), Size(1000, 270, 30)),
    4: Scenario("kill -9 of Redis", kill_redis, Size(150, 10, 2), Size(1000, 50, 10)),
    5: Scenario("Redis loses the end of its log", lose_redis_tail, Size(150, 6, 1), Size(1000, 50, 10)),
    6: Scenario("FLUSHALL", flush_redis, Size(150, 6, 1), Size(2000, 30, 3)),
    7: Scenario("groups destroyed, streams deleted", destroy_groups_and_streams, Size(150, 9, 6), Size(1500, 60, 24)),
    10: Scenario("5% of Redis' replies lost", lose_redis_replies, Size(100, 6, 0), Size(1000, 60, 0)),
    11: Scenario("Postgres frozen", freeze_postgres, Size(60, 10, 1), Size(500, 40, 1)),
    12: Scenario("kill -9 of Postgres", kill_postgres, Size(150, 9, 2), Size(1000, 50, 10)),
    15: Scenario("Qdrant's replies lost, then an outage", lose_qdrant_replies, Size(60, 6, 0), Size(500, 60, 0)),
    19: Scenario("every request five times", repeat_requests, Size(60, 5, 5), Size(500, 60, 50)),
}
