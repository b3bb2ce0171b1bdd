"""Inspection of the streams on a real Redis: waiting and pending entries, consumers, and empty
streams.
"""

from typing import Any

import pytest
from redis.asyncio import Redis

from ingest.inspection.streams import LaneState, PendingCursor, PendingEntry, StreamInspector
from ingest.inspection.throughput import Throughput
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, Header, encode_header
from shared.pipeline.stages import OPERATOR, StageName
from shared.runtime.streams.groups import create_groups
from shared.service.clients import redis_command
from shared.service.errors import DependencyError
from tests.support.stage_harness import Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHUNKER, EMBEDDER = StageName.CHUNKER, StageName.EMBEDDER
STREAM = CHUNKER.stream(Lane.NORMAL)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def inspector(redis: Redis, throughput: Throughput | None = None) -> StreamInspector:
    return StreamInspector(redis, throughput or Throughput(redis, Clock()))


async def add(
    servers: Servers, number: int, *, lane: Lane = Lane.NORMAL, deliveries: int = 0
) -> str:
    """Add an entry of one document; its id."""
    ref = DocumentRef(
        job_id=f"job-{number}",
        position=0,
        release=1,
        document_id="d",
        version=number,
        url=f"https://e.org/{number}",
    )
    header = encode_header(Header(target="t", lane=lane, documents=(ref,), deliveries=deliveries))
    entry_id: Any = await servers.redis.xadd(
        CHUNKER.stream(lane), {"h": header, "b": b"\x93vectors" * 1000}
    )
    return str(entry_id.decode())


async def read(servers: Servers, consumer: str, count: int, lane: Lane = Lane.NORMAL) -> None:
    await servers.redis.xreadgroup(CHUNKER, consumer, {CHUNKER.stream(lane): ">"}, count=count)


async def hold(servers: Servers, entry_id: str, idle_ms: int, deliveries: int = 1) -> None:
    """Have a consumer that is dead hold an entry for so long."""
    await servers.redis.xclaim(
        STREAM, CHUNKER, "dead", 0, [entry_id], idle=idle_ms, retrycount=deliveries, justid=True
    )


async def lane_of(servers: Servers, lane: Lane = Lane.NORMAL) -> LaneState:
    states = await inspector(servers.redis).streams()
    [stage] = [stage for stage in states.stages if stage.stage is CHUNKER]
    [found] = [each for each in stage.lanes if each.lane is lane]
    return found


async def pending(servers: Servers, **options: Any) -> list[PendingEntry]:
    return (await inspector(servers.redis).pending(CHUNKER, **options)).entries


async def test_without_streams_and_groups_everything_is_empty(servers: Servers) -> None:
    states = await inspector(servers.redis).streams()
    assert [stage.stage for stage in states.stages] == list(StageName)
    assert [(stage.rate_per_s, stage.eta_s) for stage in states.stages] == [(None, 0.0)] * 3
    for stage in states.stages:
        assert stage.lanes == [
            LaneState(lane=lane, stream=stage.stage.stream(lane), depth=0, lag=0) for lane in Lane
        ]  # fmt: skip
    assert (await inspector(servers.redis).pending(EMBEDDER)).entries == []


async def test_a_stream_without_its_group_shows_what_waits(servers: Servers) -> None:
    await add(servers, 1)
    await servers.redis.xgroup_create(STREAM, "somebody-else", id="0")
    lane = await lane_of(servers)
    assert (lane.depth, lane.lag, lane.pending, lane.consumers) == (1, 1, 0, [])
    assert await pending(servers) == []


async def test_a_lane_shows_depth_pending_entries_and_consumers(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    ids = [await add(servers, number) for number in range(5)]
    await read(servers, "alive", 2)
    await hold(servers, ids[1], 60_000, deliveries=3)
    await servers.redis.xgroup_createconsumer(STREAM, CHUNKER, "new")
    lane = await lane_of(servers)
    assert (lane.stream, lane.depth, lane.lag, lane.pending, lane.redeliveries) == (
        STREAM,
        5,
        3,
        2,
        1,
    )
    assert lane.oldest_idle_ms is not None
    assert lane.oldest_idle_ms >= 60_000
    assert {consumer.name: consumer.pending for consumer in lane.consumers} == {
        "alive": 1,
        "dead": 1,
        "new": 0,
    }
    inactive = {consumer.name: consumer.inactive_ms for consumer in lane.consumers}
    assert inactive["alive"] is not None
    assert inactive["new"] is None
    assert (await lane_of(servers, Lane.HIGH)).depth == 0


async def test_an_operator_is_not_listed_as_worker_but_as_holder_of_an_entry(
    servers: Servers,
) -> None:
    await create_groups(servers.redis, CHUNKER)
    entry_id = await add(servers, 1)
    await read(servers, "alive", 1)
    await servers.redis.xclaim(STREAM, CHUNKER, f"{OPERATOR}desk", 0, [entry_id], justid=True)
    assert [consumer.name for consumer in (await lane_of(servers)).consumers] == ["alive"]
    assert [entry.consumer for entry in await pending(servers)] == ["operator:desk"]


async def test_a_lag_that_redis_cannot_compute_is_unknown(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    ids = [await add(servers, number) for number in range(4)]
    await read(servers, "alive", 1)
    await servers.redis.xdel(STREAM, ids[2])
    lane = await lane_of(servers)
    assert (lane.depth, lane.lag) == (3, None)


async def test_pending_entries_show_their_documents_and_all_deliveries(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    first, second = await add(servers, 1), await add(servers, 2, deliveries=2)
    await add(servers, 3)
    await read(servers, "alive", 2)
    entries = await pending(servers)
    assert [(each.id, each.job_id, each.urls, each.deliveries) for each in entries] == [
        (first, "job-1", ["https://e.org/1"], 1),
        (second, "job-2", ["https://e.org/2"], 3),
    ]
    assert {(each.lane, each.consumer) for each in entries} == {(Lane.NORMAL, "alive")}
    # Looking is not a delivery.
    assert [each.deliveries for each in await pending(servers)] == [1, 3]


async def test_idle_over_excludes_entries_in_progress(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    ids = [await add(servers, number) for number in range(3)]
    await read(servers, "alive", 3)
    await hold(servers, ids[1], 60_000)
    assert [each.id for each in await pending(servers, idle_over=30.0)] == [ids[1]]
    assert await pending(servers, idle_over=3600.0) == []
    assert await pending(servers, idle_over=999_999 * 86400.0) == []


async def test_pages_of_pending_entries_go_through_all_lanes(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    ids = [await add(servers, number, lane=lane) for lane in Lane for number in range(20)]
    for lane in Lane:
        await read(servers, "alive", 20, lane)
    found: list[str] = []
    after: PendingCursor | None = None
    for _ in range(5):
        page = await inspector(servers.redis).pending(CHUNKER, after=after, limit=17)
        found += [each.id for each in page.entries]
        after = PendingCursor.parse(page.next) if page.next is not None else None
        if after is None:
            break
    assert found == ids
    assert after is None


async def test_a_deleted_or_unreadable_entry_is_still_shown(servers: Servers) -> None:
    await create_groups(servers.redis, CHUNKER)
    gone = await add(servers, 1)
    await servers.redis.xadd(STREAM, {"h": b"\xff", "b": b""})
    await servers.redis.xadd(STREAM, {"other": b"1"})
    await read(servers, "alive", 3)
    await servers.redis.xdel(STREAM, gone)
    assert [(each.consumer, each.job_id, each.urls) for each in await pending(servers)] == [
        ("alive", None, [])
    ] * 3


async def test_the_rate_counts_entries_that_left_and_gives_the_remaining_time(
    servers: Servers,
) -> None:
    await create_groups(servers.redis, CHUNKER)
    clock = Clock()
    throughput = Throughput(servers.redis, clock)
    ids = [await add(servers, number) for number in range(30)]
    await throughput.sample()
    assert throughput.per_second(CHUNKER) is None
    await servers.redis.xdel(STREAM, *ids[:20])
    clock.now += 10
    await throughput.sample()
    states = {
        stage.stage: stage
        for stage in (await inspector(servers.redis, throughput).streams()).stages
    }
    assert (states[CHUNKER].rate_per_s, states[CHUNKER].eta_s) == (2.0, 5.0)
    assert (states[EMBEDDER].rate_per_s, states[EMBEDDER].eta_s) == (0.0, 0.0)


async def test_an_emptied_redis_makes_the_rate_unknown_not_negative(servers: Servers) -> None:
    clock = Clock()
    throughput = Throughput(servers.redis, clock)
    await servers.redis.xdel(STREAM, await add(servers, 1))
    await throughput.sample()
    await servers.redis.flushall()
    clock.now += 5
    await throughput.sample()
    assert throughput.per_second(CHUNKER) is None


async def test_an_unavailable_redis_is_a_dependency_error() -> None:
    redis = redis_command("redis://127.0.0.1:9/0")
    with pytest.raises(DependencyError, match="redis"):
        await inspector(redis).streams()
    with pytest.raises(DependencyError, match="redis"):
        await inspector(redis).pending(CHUNKER)
    await redis.aclose()
