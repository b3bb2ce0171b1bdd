"""Reading: which lane is read when, what is reclaimed, and what follows from an error of Redis."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import encode_header
from shared.pipeline.stages import RELEASED
from shared.runtime.streams.deployment import Deployment
from shared.runtime.streams.intake import Intake, Timing
from shared.service.clients import READ_BLOCK
from tests.unit.shared.runtime.fakes import CONSUMER, STAGE, FakeScripts, header_of

ALL_FREE = dict.fromkeys(Lane, 4)
GATE_MS = 1
NEWER = b'{"schema": 99, "documents": []}'

Row = tuple[bytes, dict[bytes, bytes]]


def row(entry_id: bytes = b"1-0", header: bytes | None = None) -> Row:
    return entry_id, {b"h": header or encode_header(header_of(2)), b"b": b""}


class FakeStreams(FakeScripts):
    """The streams as one consumer sees them: what waits, what others left, and what it holds
    itself.
    """

    def __init__(self) -> None:
        super().__init__(
            join=lambda _keys, _args: 0, renew=lambda _keys, _args: [],
            leave=lambda _keys, _args: 3, claim=lambda _keys, _args: self.owner.encode(),
        )  # fmt: skip
        self.owner = "own"
        self.waiting: dict[str, list[Row]] = {}
        self.abandoned: dict[str, list[Row]] = {}
        self.own: dict[str, list[Row]] = {}
        self.vanished: list[bytes] = []
        self.cursors: dict[str, str] = {}
        self.skewed: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.reads: list[tuple[list[str], int, int | None]] = []  # lanes, count, block
        self.reclaims: list[tuple[str, str]] = []  # lane, start
        self.deleted: list[str] = []

    async def xreadgroup(
        self, group: str, consumer: str, streams: dict[str, str], count: int, block: int | None
    ) -> list[Any]:
        assert (group, consumer, set(streams.values())) == (STAGE, "me", {">"})
        if self.error is not None:
            raise self.error
        self.reads.append(([lane_of(stream) for stream in streams], count, block))
        found = [[stream.encode(), self._taken(stream, count)] for stream in streams]
        return [each for each in found if each[1]]

    def _taken(self, stream: str, count: int) -> list[Row]:
        rows = self.waiting.get(lane_of(stream), [])
        taken, self.waiting[lane_of(stream)] = rows[:count], rows[count:]
        return taken

    async def xautoclaim(
        self, stream: str, _group: str, _consumer: str, min_idle: int, start_id: str, count: int
    ) -> list[Any]:
        assert (min_idle, count) == (30_000, 1)
        lane = lane_of(stream)
        self.reclaims.append((lane, start_id))
        rows = self.abandoned.get(lane, [])
        taken, self.abandoned[lane] = rows[:1], rows[1:]
        vanished, self.vanished = self.vanished, []
        return [self.cursors.pop(lane, "0-0").encode(), taken, vanished]

    async def xpending_range(
        self,
        stream: str,
        _group: str,
        start: Any,
        _end: Any,
        _count: int,
        consumer: str | None = None,
    ) -> list[dict[str, Any]]:
        if start != "-":  # one entry, for its deliveries
            return [{"message_id": start, "times_delivered": 3}]
        if consumer is None:
            return self.skewed if lane_of(stream) == "normal" else []
        return [{"message_id": entry_id} for entry_id, _ in self.own.get(lane_of(stream), [])]

    async def xrange(self, stream: str, start: bytes, _end: bytes) -> list[Row]:
        return [each for each in self.own[lane_of(stream)] if each[0] == start]

    async def xclaim(
        self, _stream: str, _group: str, _consumer: str, _idle: int, ids: Sequence[bytes]
    ) -> list[Row]:
        return [row(entry_id) for entry_id in ids]

    async def delete(self, key: str) -> None:
        self.deleted.append(key)


class FakeLeases:
    """Which entries are in flight here."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.renewed = 0

    def holds(self, _stream: str, entry_id: str) -> bool:
        return entry_id in self.ids

    async def renew(self) -> None:
        self.renewed += 1


class Rig:
    """An intake over streams, with a clock that a test sets."""

    def __init__(self, room: dict[Lane, int] | None = None) -> None:
        self.redis = FakeStreams()
        self.leases = FakeLeases()
        self.now = 100.0
        self.room_of_next_stage = room
        fake: Any = self
        redis: Any = self.redis
        self.intake = Intake(
            redis,
            Deployment(redis, "own"),
            CONSUMER,
            fake.leases,
            fake if room is not None else None,
            Timing(clock=lambda: self.now, gate=GATE_MS / 1000, error=0.0),
        )

    async def room(self) -> dict[Lane, int]:
        assert self.room_of_next_stage is not None
        return self.room_of_next_stage

    async def take(self, free: dict[Lane, int] = ALL_FREE) -> list[str]:
        return [entry.id for entry in await self.intake.take(free)]


def lane_of(stream: str) -> str:
    return stream.rpartition(":")[2]


async def test_lanes_are_tried_one_by_one_and_then_waited_for_together() -> None:
    rig = Rig()
    assert await rig.take() == []
    assert rig.redis.reads == [
        (["high"], 4, None), (["normal"], 4, None), (["low"], 4, None),
        (["high", "normal", "low"], 1, int(READ_BLOCK * 1000)),
    ]  # fmt: skip


async def test_what_is_found_in_the_first_lane_in_turn_is_taken_without_waiting() -> None:
    rig = Rig()
    rig.redis.waiting = {"normal": [row(b"1-0"), row(b"2-0")], "low": [row(b"3-0")]}
    assert await rig.take() == ["1-0", "2-0"]
    assert await rig.take() == ["3-0"], "the low lane has had less service"
    assert all(block is None for _, _, block in rig.redis.reads)


async def test_an_entry_has_its_lane_its_documents_and_one_delivery() -> None:
    rig = Rig()
    rig.redis.waiting = {"low": [row(header=encode_header(header_of(2, stage_deliveries=1)))]}
    [entry] = await rig.intake.take(ALL_FREE)
    assert (entry.lane, entry.documents) == (Lane.LOW, 2)
    assert entry.deliveries == 2, "those that its header carries are added"


async def test_a_lane_that_the_next_stage_has_no_room_for_is_not_read() -> None:
    rig = Rig(room={Lane.HIGH: 2, Lane.NORMAL: 0, Lane.LOW: 9})
    assert await rig.take() == []
    assert rig.redis.reads[:2] == [(["high"], 2, None), (["low"], 4, None)]
    lanes, count, block = rig.redis.reads[-1]
    assert (lanes, count) == (["high", "low"], 1)
    assert block == GATE_MS, "not for long: the other lane may open meanwhile"


async def test_if_only_one_lane_has_slots_it_is_waited_for_until_others_may_have_some() -> None:
    rig = Rig()
    await rig.take({Lane.HIGH: 2, Lane.NORMAL: 0, Lane.LOW: 0})
    assert rig.redis.reads == [(["high"], 1, 40)]


async def test_while_every_lane_is_shut_nothing_is_read() -> None:
    rig = Rig(room=dict.fromkeys(Lane, 0))
    assert await rig.take() == []
    assert rig.redis.reads == []


async def test_one_abandoned_entry_at_a_time_is_reclaimed_with_its_deliveries() -> None:
    rig = Rig()
    rig.redis.abandoned = {"normal": [row(b"1-0"), row(b"2-0")]}
    [entry] = await rig.intake.take(ALL_FREE)
    assert (entry.id, entry.deliveries) == ("1-0", 3)
    assert await rig.take() == ["2-0"], "the next one at once"
    assert rig.redis.reads == []


async def test_a_scan_that_is_not_complete_goes_on_where_it_stopped() -> None:
    rig = Rig()
    rig.redis.cursors = {"low": "7-0"}
    await rig.take()
    await rig.take()
    assert [start for lane, start in rig.redis.reclaims if lane == "low"] == ["0-0", "7-0"]


async def test_after_a_complete_scan_the_next_one_has_time() -> None:
    rig = Rig()
    await rig.take()
    await rig.take()
    assert len(rig.redis.reclaims) == len(Lane)
    rig.now += 5.0
    await rig.take()
    assert len(rig.redis.reclaims) == 2 * len(Lane)


async def test_an_entry_that_is_in_flight_here_is_not_started_again() -> None:
    rig = Rig()
    rig.redis.abandoned = {"high": [row(b"1-0")]}
    rig.leases.ids = {"1-0"}
    assert await rig.take() == []


async def test_an_entry_of_a_newer_release_is_looked_at_once_a_lease() -> None:
    rig = Rig()
    rig.redis.abandoned = {"high": [row(b"1-0", NEWER)] * 2}
    assert await rig.take() == ["1-0"]
    rig.now += CONSUMER.lease - 1
    assert await rig.take() == []
    rig.now += 1
    assert await rig.take() == ["1-0"]


async def test_entries_that_were_deleted_while_pending_are_released_again() -> None:
    rig = Rig()
    rig.redis.vanished = [b"1-0"]
    await rig.take()
    assert rig.redis.deleted == [RELEASED]


async def test_an_entry_dated_into_the_future_is_claimed_after_a_lease() -> None:
    rig = Rig()
    rig.redis.skewed = [{"message_id": b"1-0", "consumer": b"other", "time_since_delivered": 0}]
    taken = []
    for _ in range(4):
        taken.append(await rig.take())
        rig.now += 15.0
    assert taken == [[], [], ["1-0"], ["1-0"]]


async def test_after_an_error_own_entries_are_started_that_nobody_here_knows_of() -> None:
    rig = Rig()
    rig.redis.error = RedisConnectionError("the reply was lost")
    assert await rig.take() == []
    rig.redis.error = None
    rig.redis.own = {"normal": [row(b"1-0"), row(b"2-0")]}
    rig.leases.ids = {"1-0"}
    assert await rig.take() == ["2-0"]
    assert rig.leases.renewed == 1
    assert [keys[0] for keys, _ in rig.redis.called("join")] == STAGE.streams, (
        "groups may be gone, too"
    )


async def test_a_redis_that_another_deployment_has_claimed_is_left_alone() -> None:
    rig = Rig()
    rig.redis.error = ResponseError("NOGROUP No such key")
    await rig.take()
    rig.redis.error, rig.redis.owner = None, "other"
    rig.redis.waiting = {"normal": [row()]}
    for _ in range(3):
        assert await rig.take() == []
    assert rig.redis.called("join") == []
    rig.redis.owner = "own"
    assert [await rig.take() for _ in range(2)] == [[], ["1-0"]]


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (RedisConnectionError("refused"), CONSUMER.lease),
        (ResponseError("NOGROUP No such key"), 0.0),
    ],
    ids=[
        "an outage: others may need a lease to renew theirs",
        "a group that was destroyed: none is held",
    ],
)
async def test_what_others_hold_is_reclaimed_after_an_error_when_they_had_time(
    error: Exception, wait: float
) -> None:
    rig = Rig()
    await rig.take()
    rig.redis.error, rig.redis.reclaims = error, []
    await rig.take()
    rig.redis.error = None
    await rig.take()  # recovers
    if wait:
        rig.now += wait - 1
        await rig.take()
        assert rig.redis.reclaims == []
        rig.now += 1
    await rig.take()
    assert len(rig.redis.reclaims) == len(Lane)


async def test_a_consumer_that_leaves_is_deleted_from_every_stream() -> None:
    rig = Rig()
    await rig.intake.leave()
    assert rig.redis.called("leave") == [(STAGE.streams, [STAGE, "me"])]
