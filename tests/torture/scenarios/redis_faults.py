"""Redis killed, emptied, short of memory, unreachable, losing replies. Ingest always accepts."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.pipeline.stages import StageName
from shared.service.clients import redis_command
from shared.service.errors import is_refusing_writes
from tests.support.waiting import becomes_true
from tests.torture.clock import OWN_CLOCK
from tests.torture.counters import STAGES, Counts
from tests.torture.driver import Result, Run, Scenario, Size
from tests.torture.faults import accepted, lose_replies, meet_work, pause_between
from tests.torture.logs import Logs

_AOF_TAIL = 64 * 1024  # bytes
_MEMORY = 1  # bytes
_PROBE = "torture:probe"  # a key that can never be written
_JUMPS = (600, 0, -600, 0)  # seconds
_BACK_WITHIN = 5.0  # seconds after the network is well again
_ERROR_LINES = 10
_ACCEPTED = 202
_OWNS = frozenset({"redis"})


async def kill_redis(run: Run) -> None:
    """kill -9 Redis while it has work, again and again; nothing that it had written is lost."""
    for _ in range(run.size.faults):
        await pause_between(run)
        await meet_work(run)
        await run.rig.kill(run.rig.pids("redis")[0])
        run.faults += 1


async def lose_redis_tail(run: Run) -> None:
    """kill -9 Redis and cut the end off its log before it restarts, as a power loss does."""
    for _ in range(run.size.faults):
        await pause_between(run)
        await meet_work(run)
        await run.rig.kill(run.rig.pids("redis")[0])
        run.rig.cut_redis_log(_AOF_TAIL)
        run.faults += 1


async def flush_redis(run: Run) -> None:
    """FLUSHALL when half of the documents were accepted; of several, at equal parts."""
    async with _redis(run) as redis:
        for number in range(run.size.faults):
            await accepted(run, (number + 1) / (run.size.faults + 1))
            await meet_work(run)
            await redis.flushall()
            run.faults += 1


async def destroy_groups_and_streams(run: Run) -> None:
    """Destroy a stage's groups, or delete its streams, under the workers; each stage in turns."""
    async with _redis(run) as redis:
        for number in range(run.size.faults):
            await pause_between(run)
            stage = list(StageName)[number % len(StageName)]
            await meet_work(run, stage)
            is_deletion = number // len(StageName) % 2
            for stream in stage.streams:
                if is_deletion:
                    await redis.delete(stream)
                elif await redis.exists(stream):
                    await redis.xgroup_destroy(stream, stage)
            run.faults += 1


async def starve_redis(run: Run) -> None:
    """Limit Redis to less memory than it uses, with entries before the chunker and the embedder."""
    await asyncio.sleep(run.size.seconds / 4)
    async with _redis(run) as redis:
        async with _dammed_up(run):
            run.problems += [
                f"nothing was before the {s}" for s, n in (await _entries(run)).items() if not n
            ]
            await redis.config_set("maxmemory", _MEMORY)
        logs = run.rig.logs()
        try:
            await asyncio.sleep(run.size.seconds / 2)
            if not await _is_starved(redis):
                run.problems.append("Redis took a write although it had no memory")
            handed_over = _handled(logs)
            run.problems += [
                f"the {s} handed nothing over for want of memory"
                for s in STAGES
                if not handed_over[s]
            ]
        finally:
            await redis.config_set("maxmemory", 0)
    run.faults += 1


async def black_hole_redis(run: Run) -> None:
    """Block the link to Redis for half of the time; afterwards every stage must go on at once."""
    proxy = run.rig.proxies["redis"]
    await asyncio.sleep(run.size.seconds / 4)
    await meet_work(run)
    run.rig.background.run(proxy.black_hole())
    try:
        await asyncio.sleep(run.size.seconds / 2)
    finally:
        logs = run.rig.logs()
        run.rig.background.run(proxy.heal())
    run.faults += 1
    run.problems += await _not_back(logs)


async def lose_redis_replies(run: Run) -> None:
    """Lose 5% of Redis' replies: what was asked was done, and nobody knows."""
    await lose_replies(run, "redis", 0.05)


async def jump_clock(run: Run) -> None:
    """Set Redis' clock ten minutes ahead, right, ten minutes back and right again, in turns.

    Entries are pending at each change. Ahead, every entry looks abandoned until it is renewed. Set
    right again, what is left looks fresh for ten minutes. There are few jumps ahead, because each
    may count a delivery against an entry.
    minutes. Few jumps ahead: each may count a delivery against an entry.
    """
    assert run.rig.clock is not None
    try:
        for number in range(run.size.faults):
            await pause_between(run)
            await meet_work(run)
            run.rig.clock.set(_JUMPS[number % len(_JUMPS)])
            run.faults += 1
    finally:
        run.rig.clock.set(0)


async def never_refused(run: Run, _: Result) -> list[str]:
    """Accepting needs no Redis."""
    others = Counter(status for status in run.statuses if status != _ACCEPTED)
    return [f"ingest answered {status} {times} times" for status, times in others.items()]


async def with_few_errors(run: Run, result: Result) -> list[str]:
    """Nor may a loss that heals fill the logs with errors."""
    errors = {
        stage: [e for e in run.logs.events(stage) if e.get("level") == "error"] for stage in STAGES
    }
    return await never_refused(run, result) + [
        f"{len(lines)} error lines of the {stage}: {Counter(line['event'] for line in lines)}"
        for stage, lines in errors.items()
        if len(lines) > _ERROR_LINES
    ]


@contextlib.asynccontextmanager
async def _redis(run: Run) -> AsyncIterator[Redis]:
    async with redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
        yield redis


@contextlib.asynccontextmanager
async def _dammed_up(run: Run) -> AsyncIterator[None]:
    """Let entries gather before the chunker and the embedder, for less than a lease."""
    run.rig.tei.hold()
    try:
        await asyncio.sleep(1.0)
        frozen = run.rig.freeze(run.rig.pids("chunker"))
        try:
            await asyncio.sleep(1.0)
            yield
        finally:
            run.rig.thaw(frozen)
    finally:
        run.rig.background.run(_release(run))


async def _not_back(logs: Logs) -> list[str]:
    """What has handed over nothing within some seconds from now on."""

    def missing() -> set[str]:
        return set(STAGES) - _handled(logs).keys()

    await becomes_true(lambda: not missing(), timeout=_BACK_WITHIN, every=0.05)
    return [
        f"the {stage} handed nothing over within {_BACK_WITHIN:g} s of healing"
        for stage in missing()
    ]


async def _release(run: Run) -> None:
    run.rig.tei.release()


async def _is_starved(redis: Redis) -> bool:
    try:
        await redis.set(_PROBE, 1)
    except ResponseError as error:
        return is_refusing_writes(error)
    return False


async def _entries(run: Run) -> dict[str, int]:
    """Entries before the chunker and the embedder."""
    backlog = await run.observer.backlog()
    dammed_up = (StageName.CHUNKER, StageName.EMBEDDER)
    return {stage: sum(backlog[stream][0] for stream in stage.streams) for stage in dammed_up}


def _handled(logs: Logs) -> Counter[str]:
    """Entries that each stage has handed over."""
    return Counter(
        event["stage"] for event in logs.events(*STAGES) if event.get("event") == "Batch handled"
    )


SCENARIOS = {
    4: Scenario(
        "kill -9 of Redis", kill_redis, Size(150, 8, 2), Size(1500, 50, 10),
        verify=never_refused, owns=_OWNS,
    ),
    5: Scenario(
        "Redis loses the end of its log", lose_redis_tail, Size(150, 6, 1), Size(1500, 50, 10),
        minimum=Counts(released_again=1), verify=never_refused, owns=_OWNS,
    ),
    6: Scenario(
        "FLUSHALL", flush_redis, Size(150, 6, 1), Size(2000, 40, 1),
        clean_within=30, minimum=Counts(released_again=1), verify=never_refused, owns=_OWNS,
    ),
    7: Scenario(
        "groups destroyed, streams deleted", destroy_groups_and_streams,
        Size(200, 9, 6), Size(2000, 60, 24),
        minimum=Counts(released_again=1), verify=with_few_errors, owns=_OWNS,
    ),
    8: Scenario(
        "Redis short of memory", starve_redis, Size(150, 12, 1), Size(1500, 40, 1),
        verify=never_refused, owns=_OWNS,
    ),
    9: Scenario(
        "Redis in a black hole", black_hole_redis, Size(150, 12, 1), Size(1500, 40, 1),
        verify=never_refused, owns=_OWNS,
    ),
    10: Scenario(
        "5% of Redis' replies lost", lose_redis_replies, Size(150, 6, 0), Size(1500, 60, 0),
        verify=never_refused,
    ),
    24: Scenario(
        "Redis' clock ten minutes ahead and back", jump_clock, Size(150, 8, 6), Size(1500, 60, 12),
        environment={OWN_CLOCK: "1"}, verify=never_refused, owns=_OWNS,
    ),
}  # fmt: skip
