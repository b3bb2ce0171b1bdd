"""Actions of an operator on a pending entry: hold it, release it, dead-letter it.

An operator is another consumer of the group of the stage. It claims the entry first: the previous
consumer loses its lease, stops working, and its hand-over is refused. From then on the runtime
works as usual.
"""

import asyncio
import contextlib
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ingest.inspection.streams import redis_errors
from shared.pipeline.entries import Consumer, Entry, entry_of
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import MalformedMessageError, decode_header
from shared.pipeline.outcomes import Dead
from shared.pipeline.stages import OPERATOR, RELEASED, StageName
from shared.runtime.recorder import Recorder
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.lua import script
from shared.service.errors import DependencyError, MillstreamError, is_missing_group

log = structlog.get_logger()


class NotPendingError(MillstreamError):
    """No consumer of the stage holds this entry."""


class PendingConflictError(MillstreamError):
    """Another consumer holds the entry than the operator expected, or two lanes have an entry of
    this id.
    """


class WantedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The entry that an operator selects."""

    id: str
    lane: Lane | None = None  # required if two lanes have an entry of this id
    consumer: str | None = None  # if given, it must still hold the entry


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that an operator claimed."""

    stage: StageName
    lane: Lane
    id: str
    taken_from: str  # the consumer that held it
    deliveries: int  # without that to the operator


class Claimed(Taken, frozen=True, kw_only=True):
    held_for_s: float  # until it can be reclaimed


class DeadLettered(Taken, frozen=True, kw_only=True):
    dead_letters: (
        int  # one for each document that was current, or one for an entry that cannot be read
    )


class Operator:
    """Acts on the pending entries of one stage.

    Every method raises NotPendingError, PendingConflictError, and DependencyError when Redis is
    unavailable.
    """

    def __init__(
        self, redis: Redis, consumer: Consumer, recorder: Recorder, handover: HandOver
    ) -> None:
        self._redis = redis
        self._consumer = consumer
        self._recorder = recorder
        self._handover = handover
        self._seize = redis.register_script(script("seize"))
        self._leave = redis.register_script(script("leave"))

    async def claim(self, wanted: WantedEntry) -> Claimed:
        """Hold the entry for one lease; then a worker reclaims it."""
        taken = await self._take(wanted, await self._lane(wanted), "claim")
        return Claimed(**msgspec.structs.asdict(taken), held_for_s=float(self._consumer.lease))

    async def release(self, wanted: WantedEntry) -> Taken:
        """Let the next worker that asks have the entry, without counting a delivery."""
        idle_ms = int(self._consumer.lease * 1000) + 1
        return await self._take(wanted, await self._lane(wanted), "release", idle_ms)

    async def dead_letter(self, wanted: WantedEntry, reason: str) -> DeadLettered:
        """Write a dead letter for each document of the entry, then remove the entry.

        Raises NewerSchemaError, with nothing changed, for an entry of a later release; and
        DependencyError if Postgres is unavailable for a lease: then a worker reclaims the entry.
        """
        lane = await self._lane(wanted)
        fields = await self._read(lane, wanted.id)
        with contextlib.suppress(MalformedMessageError):  # which becomes a raw dead letter
            decode_header(fields.get(b"h"))
        taken = await self._take(wanted, lane, "dead-letter")
        entry = entry_of(self._consumer.stage, lane, wanted.id, fields, taken.deliveries)
        try:
            async with asyncio.timeout(self._consumer.lease):
                dead_letters = await self._dead_letter(entry, reason)
                # Refused if a worker has reclaimed it meanwhile: that worker finds no current item
                # in it, and ends it.
                await self._handover.pass_on(entry)
        except TimeoutError as error:
            raise DependencyError(
                "postgres", "the dead letters were not written in time: repeat the request"
            ) from error
        await self._leave_group(entry)
        return DeadLettered(**msgspec.structs.asdict(taken), dead_letters=dead_letters)

    async def _lane(self, wanted: WantedEntry) -> Lane:
        """The lane of the pending entry."""
        lanes = [wanted.lane] if wanted.lane is not None else list(Lane)
        with redis_errors():
            found = [lane for lane in lanes if await self._is_pending(lane, wanted.id)]
        if not found:
            raise NotPendingError(
                f"no consumer of the {self._consumer.stage} holds an entry {wanted.id}"
            )
        if len(found) > 1:
            raise PendingConflictError(
                f"the lanes {' and '.join(found)} both have an entry {wanted.id}: send `lane`"
            )
        return found[0]

    async def _is_pending(self, lane: Lane, entry_id: str) -> bool:
        consumer = self._consumer
        try:
            stream = consumer.stage.stream(lane)
            rows = await self._redis.xpending_range(stream, consumer.stage, entry_id, entry_id, 1)
            return bool(rows)
        except ResponseError as error:
            if is_missing_group(error):
                return False
            raise

    async def _take(self, wanted: WantedEntry, lane: Lane, action: str, idle_ms: int = 0) -> Taken:
        consumer = self._consumer
        expected = (wanted.consumer or "").encode(errors="replace")
        with redis_errors():
            answer: Any = await self._seize(
                keys=[consumer.stage.stream(lane), RELEASED],
                args=[consumer.stage, consumer.name, wanted.id, idle_ms, expected, OPERATOR],
            )
        if not answer:
            raise NotPendingError(
                f"no consumer of the {consumer.stage} holds the entry {wanted.id} any more"
            )
        holder = answer[0].decode(errors="replace")
        if len(answer) == 1:
            raise PendingConflictError(f"{holder} holds the entry {wanted.id} now")
        log.info(
            "Operator took an entry",
            stage=consumer.stage,
            lane=lane,
            entry_id=wanted.id,
            action=action,
            taken_from=holder,
        )
        return Taken(
            stage=consumer.stage, lane=lane, id=wanted.id, taken_from=holder, deliveries=answer[1]
        )

    async def _read(self, lane: Lane, entry_id: str) -> dict[bytes, bytes]:
        """The fields of the entry; none if it was deleted."""
        with redis_errors():
            rows: Any = await self._redis.xrange(
                self._consumer.stage.stream(lane), entry_id, entry_id
            )
        return dict(rows[0][1]) if rows else {}

    async def _dead_letter(self, entry: Entry, reason: str) -> int:
        """Write the dead letters of the entry; returns how many."""
        try:
            header = decode_header(entry.header)
            documents = await self._recorder.begin(entry, header)
        except MalformedMessageError as error:
            await self._recorder.dead_letter(entry, str(error))
            return 1
        dead = [Dead("given_up", reason) for _ in documents]
        await self._recorder.record(documents, dead, header, entry.deliveries)
        return len(dead)

    async def _leave_group(self, entry: Entry) -> None:
        """Leave the group if nothing else is held; else the janitor removes this consumer later."""
        with contextlib.suppress(RedisError, OSError):
            await self._leave(keys=[entry.stream], args=[self._consumer.stage, self._consumer.name])
