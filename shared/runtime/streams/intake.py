"""Reading: new entries, entries of crashed consumers, and own entries after a lost reply."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.entries import Consumer, Entry, entry_of
from shared.pipeline.failpoints import failpoint
from shared.pipeline.lanes import FairLanes, Lane
from shared.pipeline.stages import RELEASED
from shared.runtime.streams.clock_skew import ClockSkew
from shared.runtime.streams.deployment import Deployment
from shared.runtime.streams.gate import Gate
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.leases import Leases
from shared.runtime.streams.lua import script
from shared.service.clients import READ_BLOCK
from shared.service.errors import ForeignRedisError, is_missing_group

log = structlog.get_logger()

_RECLAIM_INTERVAL = 5.0
_PENDING = 1000  # entries that are listed; more than a stage ever has in flight


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of an intake, and how long it waits, in seconds."""

    clock: Callable[[], float] = time.monotonic
    gate: float = 0.05  # between looks at a gate that is shut
    reserved: float = 0.04  # for lanes with reserved slots; others may get a slot meanwhile
    error: float = 0.5


class Intake:
    """One consumer's reading. `take` waits after an error of Redis, and does not raise it."""

    def __init__(
        self, reader: Redis, deployment: Deployment, consumer: Consumer, leases: Leases,
        gate: Gate | None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
    ) -> None:  # fmt: skip
        self._reader = reader
        self._command = deployment.redis
        self._deployment = deployment
        self._stage = consumer.stage
        self._consumer = consumer.name
        self._lease = consumer.lease
        self._leases = leases
        self._gate = gate
        self._timing = timing
        self._leave = deployment.redis.register_script(script("leave"))
        self._fair = FairLanes()
        self._cursors = dict.fromkeys(Lane, "0-0")
        self._skew = {lane: ClockSkew(consumer.lease) for lane in Lane}
        self._next_reclaim = 0.0
        # A reply was lost, and its entries may be pending, not in flight.
        self._is_disturbed = False

    async def take(self, free: Mapping[Lane, int], *, may_reclaim: bool = True) -> list[Entry]:
        """Return up to `free` entries of each lane (two more at most); none after a short wait."""
        try:
            if self._is_disturbed:
                return await self._recover()
            is_due = may_reclaim and self._timing.clock() >= self._next_reclaim
            if is_due and (reclaimed := await self._reclaim()):
                return reclaimed
            return await self._read(free)
        except (RedisError, OSError, ForeignRedisError) as error:
            await self._disturbed(error)
            return []

    async def leave(self) -> None:
        """Delete this consumer from the groups where it has nothing pending."""
        await self._leave(keys=self._stage.streams, args=[self._stage, self._consumer])

    async def _read(self, free: Mapping[Lane, int]) -> list[Entry]:
        room = await self._open_lanes(free)
        if not room:
            await asyncio.sleep(self._timing.gate)
            return []
        if len(room) > 1 and (entries := await self._read_in_turn(room)):
            return entries
        # COUNT is per stream: with COUNT 1 at most one entry of each lane comes, so two over the
        # slots at most.
        return await self._read_group(list(room), count=1, block=self._block(free, room))

    async def _read_in_turn(self, room: Mapping[Lane, int]) -> list[Entry]:
        """Return entries of the first lane in turn that has any."""
        for lane in self._fair.order(room):
            if entries := await self._read_group([lane], count=room[lane], block=None):
                return entries
            self._fair.found_empty(lane)
        return []

    async def _open_lanes(self, free: Mapping[Lane, int]) -> dict[Lane, int]:
        """Return how many entries each lane may have that has slots and is not shut."""
        room = await self._gate.room() if self._gate else free
        for lane in (lane for lane in Lane if room[lane] == 0):
            self._fair.found_empty(lane)
        return {lane: entries for lane in Lane if (entries := min(free[lane], room[lane])) > 0}

    async def _read_group(
        self, lanes: Sequence[Lane], *, count: int, block: float | None
    ) -> list[Entry]:
        lane_of = {self._stage.stream(lane): lane for lane in lanes}
        answer: Any = await self._reader.xreadgroup(
            self._stage, self._consumer, dict.fromkeys(lane_of, ">"), count=count,
            block=None if block is None else int(block * 1000),
        )  # fmt: skip
        entries = []
        for stream, rows in answer or []:
            lane = lane_of[stream.decode()]
            found = [
                entry_of(self._stage, lane, entry_id.decode(), fields, 1)
                for entry_id, fields in rows
            ]
            self._fair.served(lane, sum(entry.documents for entry in found))
            entries += found
        return entries

    def _block(self, free: Mapping[Lane, int], room: Mapping[Lane, int]) -> float:
        """Return the seconds to wait for an entry: few, if a lane may open before one comes."""
        if not all(free.values()):
            return self._timing.reserved
        return READ_BLOCK if len(room) == len(Lane) else self._timing.gate

    async def _reclaim(self) -> list[Entry]:
        """Take over one entry whose lease has expired, if there is one.

        One, because it may be what crashed its worker: entries that are claimed with it would each
        count another delivery. The cursors are kept, since one call scans only a part of the
        pending entries.
        """
        for lane in Lane:
            stream = self._stage.stream(lane)
            answer: Any = await self._command.xautoclaim(
                stream,
                self._stage,
                self._consumer,
                int(self._lease * 1000),
                start_id=self._cursors[lane],
                count=1,
            )
            self._cursors[lane] = answer[0].decode()
            if answer[2]:
                log.error("Entries deleted while pending", stream=stream, entries=len(answer[2]))
                await self._command.delete(RELEASED)
            for entry_id, fields in answer[1]:
                if self._leases.holds(stream, entry_id.decode()):
                    continue
                failpoint(self._stage, "reclaimed")
                entry = await self._claimed(lane, entry_id, fields)
                if entry.is_newer:  # it is given back: a look at once would only find it again
                    self._next_reclaim = self._timing.clock() + self._lease
                return [entry]
        if set(self._cursors.values()) == {"0-0"}:
            self._next_reclaim = self._timing.clock() + min(_RECLAIM_INTERVAL, self._lease / 2)
            return await self._reclaim_skewed()
        return []

    async def _reclaim_skewed(self) -> list[Entry]:
        """Take over one entry that has no idle time, since Redis' clock was set back."""
        for lane in Lane:
            stream = self._stage.stream(lane)
            pending: Any = await self._command.xpending_range(
                stream, self._stage, "-", "+", _PENDING
            )
            for entry_id in self._skew[lane].abandoned(pending, self._timing.clock()):
                name = entry_id.decode()
                if self._leases.holds(stream, name):
                    continue
                log.warning(
                    "Entry dated into the future", stage=self._stage, entry_id=name, stream=stream
                )
                rows: Any = await self._command.xclaim(
                    stream, self._stage, self._consumer, 0, [entry_id]
                )
                return [await self._claimed(lane, claimed, fields) for claimed, fields in rows]
        return []

    async def _recover(self) -> list[Entry]:
        """After an error of Redis, renew what is held, and start what was in a lost reply.

        Nothing is touched if another deployment has claimed Redis meanwhile.

        Own entries are listed by XPENDING and fetched by XRANGE: reading the own PEL would count as
        deliveries.
        """
        await self._deployment.claim()
        await create_groups(self._command, self._stage)
        await self._leases.renew()
        entries = []
        for lane in Lane:
            stream = self._stage.stream(lane)
            pending: Any = await self._command.xpending_range(
                stream, self._stage, "-", "+", _PENDING, self._consumer
            )
            ids = [row["message_id"] for row in pending]
            for entry_id in (each for each in ids if not self._leases.holds(stream, each.decode())):
                rows: Any = await self._command.xrange(stream, entry_id, entry_id)
                entries += [await self._claimed(lane, entry_id, fields) for _, fields in rows]
        self._is_disturbed = False
        log.info("Redis is back", stage=self._stage, recovered=len(entries))
        return entries

    async def _disturbed(self, error: Exception) -> None:
        if not self._is_disturbed:
            log.warning("Reading disturbed", stage=self._stage, error=str(error))
        self._is_disturbed = True
        # Other consumers may have been cut off as well: they get one lease to renew before their
        # entries are taken.
        self._next_reclaim = self._timing.clock() + (0 if is_missing_group(error) else self._lease)
        await asyncio.sleep(self._timing.error)

    async def _claimed(self, lane: Lane, entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
        stream = self._stage.stream(lane)
        pending: Any = await self._command.xpending_range(
            stream, self._stage, entry_id, entry_id, 1
        )
        deliveries = pending[0]["times_delivered"] if pending else 1
        return entry_of(self._stage, lane, entry_id.decode(), fields, deliveries)
