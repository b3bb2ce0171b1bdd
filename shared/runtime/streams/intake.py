"""Reading: new entries for free slots, entries that a dead consumer left, and own ones after a lost reply."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.entries import Consumer, Entry, entry_of
from shared.pipeline.failpoints import failpoint
from shared.pipeline.lanes import FairLanes, Lane
from shared.pipeline.stages import RELEASED
from shared.runtime.streams.gate import Gate
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.leases import Leases
from shared.runtime.streams.lua import script
from shared.runtime.streams.undated import Undated
from shared.service.clients import READ_BLOCK
from shared.service.errors import is_missing_group

log = structlog.get_logger()

_RECLAIM_INTERVAL = 5.0
_SHUT_PAUSE = 0.05  # seconds between looks at a gate that is shut
_FULL_PAUSE = 0.04  # seconds that only the high lane is waited for: a slot of the others may become free meanwhile
_ERROR_PAUSE = 0.5
_PENDING = 1000  # entries that are listed; more than a stage ever has in work


class Intake:
    """One consumer's reading. Errors of Redis are waited out here; none of them leaves `take`."""

    def __init__(
        self, reader: Redis, command: Redis, consumer: Consumer, leases: Leases, gate: Gate | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._reader = reader
        self._command = command
        self._consumer = consumer
        self._leases = leases
        self._gate = gate
        self._clock = clock
        self._leave = command.register_script(script("leave"))
        self._fair = FairLanes()
        self._cursors = dict.fromkeys(Lane, "0-0")
        self._undated = {lane: Undated(consumer.lease) for lane in Lane}
        self._next_reclaim = 0.0
        self._is_disturbed = False  # a reply was lost: own entries may be pending that nobody here knows of

    async def take(self, free: Mapping[Lane, int]) -> list[Entry]:
        """Up to so many entries of each lane (two more at most), or none after a short wait."""
        try:
            if self._is_disturbed:
                return await self._recover()
            if self._clock() >= self._next_reclaim and (reclaimed := await self._reclaim()):
                return reclaimed
            return await self._read(free)
        except (RedisError, OSError) as error:
            await self._disturbed(error)
            return []

    async def leave(self) -> None:
        """Delete this consumer from the groups, where it has nothing pending."""
        await self._leave(keys=self._consumer.stage.streams, args=[self._consumer.stage, self._consumer.name])

    async def _read(self, free: Mapping[Lane, int]) -> list[Entry]:
        room = await self._open_lanes(free)
        if not room:
            await asyncio.sleep(_SHUT_PAUSE)
            return []
        if len(room) > 1 and (entries := await self._read_in_turn(room)):  # a single lane is waited for at once
            return entries
        # COUNT is per stream: with COUNT 1 at most one entry of each lane comes, so two over the slots at most.
        return await self._read_group(list(room), count=1, block=_block(free, room))

    async def _read_in_turn(self, room: Mapping[Lane, int]) -> list[Entry]:
        """Entries of the first lane in turn that has any."""
        for lane in self._fair.order(room):
            if entries := await self._read_group([lane], count=room[lane], block=None):
                return entries
            self._fair.found_empty(lane)
        return []

    async def _open_lanes(self, free: Mapping[Lane, int]) -> dict[Lane, int]:
        """The lanes with free slots that are not shut, and how many entries each may have."""
        room = await self._gate.room() if self._gate else free
        for lane in (lane for lane in Lane if room[lane] == 0):
            self._fair.found_empty(lane)  # a lane that is shut saves up no claim for later
        return {lane: entries for lane in Lane if (entries := min(free[lane], room[lane])) > 0}

    async def _read_group(self, lanes: Sequence[Lane], *, count: int, block: float | None) -> list[Entry]:
        lane_of = {self._consumer.stage.stream(lane): lane for lane in lanes}
        answer: Any = await self._reader.xreadgroup(
            self._consumer.stage, self._consumer.name, dict.fromkeys(lane_of, ">"), count=count,
            block=None if block is None else int(block * 1000),
        )  # fmt: skip
        entries = []
        for stream, rows in answer or []:
            lane = lane_of[stream.decode()]
            found = [entry_of(self._consumer.stage, lane, entry_id.decode(), fields, 1) for entry_id, fields in rows]
            self._fair.served(lane, sum(entry.documents for entry in found))
            entries += found
        return entries

    async def _reclaim(self) -> list[Entry]:
        """Take over one entry whose lease ran out, if there is any.

        One, because it may be what killed its worker: others claimed with it would count another delivery
        each time. The cursors are carried on, since one call scans only a part of the pending entries.
        """
        for lane in Lane:
            stream = self._consumer.stage.stream(lane)
            answer: Any = await self._command.xautoclaim(
                stream, self._consumer.stage, self._consumer.name, int(self._consumer.lease * 1000),
                start_id=self._cursors[lane], count=1,
            )  # fmt: skip
            self._cursors[lane] = answer[0].decode()
            if answer[2]:
                log.error("Entries deleted while pending", stream=stream, entries=len(answer[2]))
                await self._command.delete(RELEASED)
            for entry_id, fields in answer[1]:
                if self._leases.holds(stream, entry_id.decode()):
                    continue
                failpoint(self._consumer.stage, "reclaimed")
                entry = await self._claimed(lane, entry_id, fields)
                if entry.is_newer:  # it is given back: the next look at it has time
                    self._next_reclaim = self._clock() + self._consumer.lease
                return [entry]
        if set(self._cursors.values()) == {"0-0"}:
            self._next_reclaim = self._clock() + min(_RECLAIM_INTERVAL, self._consumer.lease / 2)
            return await self._reclaim_undated()
        return []

    async def _reclaim_undated(self) -> list[Entry]:
        """Take over one entry that has no idle time to reclaim it by, since Redis' clock was set back."""
        consumer = self._consumer
        for lane in Lane:
            stream = consumer.stage.stream(lane)
            pending: Any = await self._command.xpending_range(stream, consumer.stage, "-", "+", _PENDING)
            for entry_id in self._undated[lane].look(pending, self._clock()):
                if self._leases.holds(stream, entry_id.decode()):
                    continue
                log.warning(
                    "Entry dated into the future", stage=consumer.stage, entry_id=entry_id.decode(), stream=stream
                )
                rows: Any = await self._command.xclaim(stream, consumer.stage, consumer.name, 0, [entry_id])
                return [await self._claimed(lane, claimed, fields) for claimed, fields in rows]
        return []

    async def _recover(self) -> list[Entry]:
        """After an error of Redis: renew what is held, then start what was delivered without our knowing.

        Own entries are listed by XPENDING and fetched by XRANGE: reading the own PEL would count as deliveries.
        """
        await create_groups(self._command, self._consumer.stage)
        await self._leases.renew()
        entries = []
        for lane in Lane:
            stream = self._consumer.stage.stream(lane)
            pending: Any = await self._command.xpending_range(
                stream, self._consumer.stage, "-", "+", _PENDING, self._consumer.name
            )
            unknown = [
                row["message_id"] for row in pending if not self._leases.holds(stream, row["message_id"].decode())
            ]
            for entry_id in unknown:
                rows: Any = await self._command.xrange(stream, entry_id, entry_id)
                entries += [await self._claimed(lane, entry_id, fields) for _, fields in rows]
        self._is_disturbed = False
        log.info("Redis is back", stage=self._consumer.stage, recovered=len(entries))
        return entries

    async def _disturbed(self, error: Exception) -> None:
        if not self._is_disturbed:
            log.warning("Reading disturbed", stage=self._consumer.stage, error=str(error))
        self._is_disturbed = True
        # Others may have been cut off as well: give them one lease to renew before taking theirs.
        self._next_reclaim = self._clock() + (0 if is_missing_group(error) else self._consumer.lease)
        await asyncio.sleep(_ERROR_PAUSE)

    async def _claimed(self, lane: Lane, entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
        stream = self._consumer.stage.stream(lane)
        pending: Any = await self._command.xpending_range(stream, self._consumer.stage, entry_id, entry_id, 1)
        return entry_of(
            self._consumer.stage, lane, entry_id.decode(), fields, pending[0]["times_delivered"] if pending else 1
        )


def _block(free: Mapping[Lane, int], room: Mapping[Lane, int]) -> float:
    """Seconds to wait for an entry; short, if a lane may be read before one comes that cannot be read now."""
    if not all(free.values()):
        return _FULL_PAUSE
    return READ_BLOCK if len(room) == len(Lane) else _SHUT_PAUSE
