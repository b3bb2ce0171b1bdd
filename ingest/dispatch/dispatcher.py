"""The dispatcher: releases items from Postgres to the streams while there is room.

One process at a time dispatches, by election. All items enter the streams here: first dispatch,
retries, deletes and recovery after a loss of Redis are items that are due. A release is committed
in Postgres first and published by a script second. The marker in Redis is the number of the last
published release. So a crash between the two, a lost reply, a restored Redis and an empty one are
the same case: items that were released after the marker are queued again.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from redis.exceptions import RedisError

from ingest.dispatch.batching import Room, may_overtake, messages_of, room_for
from ingest.dispatch.election import Election, LostElectionError
from ingest.dispatch.reindexing import Reindexer
from ingest.dispatch.release import Pick, Released, Releases, Which
from ingest.dispatch.rescue import Rescue
from ingest.dispatch.sizing import COUNTED_DEPTH, BatchSizes, Samples
from ingest.jobs.reindexes import Pause, Reindexes
from shared.pipeline.failpoints import failpoint
from shared.pipeline.lanes import SMALL_SOURCE, FairLanes, Lane
from shared.pipeline.messages import Action, Header, encode_header
from shared.pipeline.stages import OWNER, RELEASED, StageName
from shared.runtime.streams.deployment import Deployment
from shared.runtime.streams.gate import Gate
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.lua import script
from shared.service.clients import PostgresPool, is_postgres_unavailable
from shared.service.errors import ForeignRedisError
from shared.service.metrics import Metrics

log = structlog.get_logger()

_ELECTION_INTERVAL = 1.0
_IDLE_POLL = 0.05
_CHECK_INTERVAL = 1.0
_LOOK_INTERVAL = 0.1
_PAUSED_INTERVAL = 0.1  # in the pause of a reindex, which is to be short
_SOURCES = 64
_ITEMS_OF_SOURCE = 8


class RefusedReleaseError(Exception):
    """The marker is not the expected one: Redis lost data, or another dispatcher has released.

    Or another deployment has claimed Redis.
    """

    def __init__(self, answer: bytes, expected: int) -> None:
        """`answer`: of publish.lua."""
        super().__init__(
            "the keys in Redis belong to another deployment"
            if answer == b"foreign"
            else f"the marker is {answer.decode()}, expected {expected}"
        )


_INTERRUPTIONS = (RefusedReleaseError, LostElectionError, ForeignRedisError)


class Dispatcher:
    """Releases items as long as it is elected."""

    def __init__(
        self, pool: PostgresPool, deployment: Deployment, gates: Mapping[Action, Gate],
        metrics: Metrics, *, size: str, stage_timeout: float,
    ) -> None:  # fmt: skip
        """`gates`: of the streams that documents and deletes are released to."""
        self._redis = redis = deployment.redis
        self._deployment = deployment
        self._gates = gates
        self._releases = Releases(pool)
        self._script = redis.register_script(script("publish"))
        self._released = metrics.released
        self._sizes = BatchSizes(size)
        self._samples = Samples(self._sizes, self._releases.stage_seconds)
        self._rescue = Rescue(self._releases, redis, stage_timeout)
        self._reindexer = Reindexer(Reindexes(pool), stage_timeout)
        # The pauses during which the streams are shut to all items but transfers.
        self._pauses: frozenset[Pause] = frozenset()
        self._fair = FairLanes()
        self._cursors = dict.fromkeys(Lane, "")
        self._small_cursors = dict.fromkeys(Lane, "")
        # Lanes whose small sources use the streams of another lane, and that lane.
        self._overtaken: dict[Lane, Lane] = {}
        self._next_look = 0.0
        self._marker = 0
        self._number: int | None = None  # drawn, but not used for a release yet

    async def run(self, election: Election) -> None:
        """Try to be elected, and dispatch while elected, until cancelled."""
        while True:
            try:
                await self._dispatch_if_elected(election)
            except (RedisError, OSError, *_INTERRUPTIONS) as error:
                log.warning("Dispatch interrupted", error=str(error))
            except Exception as error:
                if not is_postgres_unavailable(error):
                    raise
                log.warning("Dispatch interrupted", error=str(error))
            await asyncio.sleep(_ELECTION_INTERVAL)

    async def _dispatch_if_elected(self, election: Election) -> None:
        if not await election.win():
            return
        log.info("Dispatcher elected")
        self._pauses = frozenset()  # another process may have released since
        renewal = asyncio.create_task(election.keep(), name="election")
        try:
            await self._deployment.claim()
            # Before the first entry: a stage takes a missing group for a loss of Redis.
            for stage in StageName:
                await create_groups(self._redis, stage)
            while not renewal.done():
                await self._dispatch_for(_CHECK_INTERVAL)
            raise LostElectionError("the lease was lost: another process may dispatch now")
        finally:
            renewal.cancel()
            await election.resign()

    async def _dispatch_for(self, seconds: float) -> None:
        """Check for losses, take the next steps of reindexes, then release items for `seconds`."""
        await self.check_marker()
        await self.reindex()
        await self._samples.measure()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (_PAUSED_INTERVAL if self._pauses else seconds)
        while loop.time() < deadline:
            if not await self.release_some():
                await asyncio.sleep(_IDLE_POLL)

    async def release_some(self) -> int:
        """Release the next items of the lane whose turn it is; returns how many.

        0 if nothing is due or no lane has room.
        """
        if released := await self._let_overtake():
            return released
        rooms = await self._rooms()
        for lane in (lane for lane in Lane if rooms[lane].messages == 0):
            self._fair.found_empty(lane)  # a full lane accrues no credit
        for lane in self._fair.order([lane for lane in Lane if rooms[lane].messages > 0]):
            released = await self._release_lane(
                lane, rooms[lane], self._which(rooms[lane], lane in self._overtaken)
            )
            if released:
                self._fair.served(lane, released)
                return released
            self._fair.found_empty(lane)
        return 0

    async def _let_overtake(self) -> int:
        """Release some small sources of full lanes to the streams of the lane above.

        Checks ten times a second.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next_look or self._pauses:
            return 0
        self._next_look = now + _LOOK_INTERVAL
        self._overtaken = await self._full_lanes()
        for lane, above in self._overtaken.items():
            pick = Pick(
                lane=lane, cursor=self._small_cursors[lane], sources=_SOURCES, items=SMALL_SOURCE,
                which=Which.OF_SMALL_SOURCES, travels_in=above,
            )  # fmt: skip
            if released := await self._release(pick, self._small_cursors):
                return released
        return 0

    async def _full_lanes(self) -> dict[Lane, Lane]:
        """The lanes whose small sources use the streams of the lane above, and that lane."""
        pipeline = self._redis.pipeline(transaction=False)
        for lane, stage in itertools.product(Lane, StageName):
            pipeline.xlen(stage.stream(lane))
        lengths = iter(await pipeline.execute())
        messages = {lane: sum(itertools.islice(lengths, len(StageName))) for lane in Lane}
        return {
            lane: above
            for above, lane in itertools.pairwise(Lane)
            if may_overtake(messages[lane], messages[above])
        }

    async def _rooms(self) -> dict[Lane, Room]:
        chunks, deletes = (
            await self._gates[Action.INDEX].room(),
            await self._gates[Action.DELETE].room(),
        )
        return {lane: room_for(chunks=chunks[lane], deletes=deletes[lane]) for lane in Lane}

    def _which(self, room: Room, is_overtaken: bool) -> Which:
        if self._pauses:
            return Which.TARGETED_DELETES if room.deletes_only else Which.TARGETED
        if room.deletes_only:
            return Which.DELETES
        return Which.OF_LARGE_SOURCES if is_overtaken else Which.ANY

    async def _release_lane(self, lane: Lane, room: Room, which: Which) -> int:
        budget = room.messages * self._sizes.smallest
        items = min(max(_ITEMS_OF_SOURCE, self._sizes.size(COUNTED_DEPTH)), budget)
        pick = Pick(
            lane=lane,
            cursor=self._cursors[lane],
            sources=max(1, min(_SOURCES, budget // items)),
            items=items,
            which=which,
            travels_in=lane,
        )
        return await self._release(pick, self._cursors)

    async def _release(self, pick: Pick, cursors: dict[Lane, str]) -> int:
        number = self._number = self._number or await self._releases.next_number(self._marker)
        failpoint("dispatch", "numbered")
        picked = await self._releases.release(pick, number)
        if not picked.items and pick.cursor:  # nothing after the cursor: start at the front
            pick = msgspec.structs.replace(pick, cursor="")
            picked = await self._releases.release(pick, number)
        cursors[pick.lane] = picked.cursor
        if picked.items:
            await self._put_into_streams(picked.items, pick.travels_in, number)
        return len(picked.items)

    async def _put_into_streams(self, items: Sequence[Released], lane: Lane, number: int) -> None:
        self._number = None  # used from here on, even if publishing fails
        depth = len(items) + await self._releases.depth(lane) if self._sizes.is_automatic else 0
        messages = list(messages_of(items, lane, number, self._sizes.size(depth)))
        failpoint("dispatch", "released")
        try:
            await self._publish(number, messages)
        except RefusedReleaseError:
            await self._releases.requeue(number)
            raise
        failpoint("dispatch", "published")
        self._marker = number
        self._samples.add([header for _, header in messages])
        self._released.labels(lane).inc(len(items))
        log.debug(
            "Released", lane=lane, documents=len(items), messages=len(messages), release=number
        )

    async def reindex(self) -> None:
        """Take the next step of each reindex. During a pause, only transfers are released.

        The pauses are read after the marker: a dispatcher that has read marker N has seen every
        pause that began before N.
        """
        pauses = await self._reindexer.pauses()
        if pauses - self._pauses:
            await self._shut_others_out()
        self._pauses = pauses
        await self._reindexer.step(pauses)

    async def _shut_others_out(self) -> None:
        """Publish an empty release, after which releases of a former dispatcher are refused."""
        number = await self._releases.next_number(self._marker)
        await self._publish(number, [])
        self._marker, self._number = number, None

    async def _publish(self, number: int, messages: Sequence[tuple[str, Header]]) -> None:
        """Add the messages to their streams and set the marker; raises RefusedReleaseError."""
        answer = await self._script(
            keys=[RELEASED, OWNER, *(stream for stream, _ in messages)],
            args=[
                self._marker, number, self._deployment.id,
                *(encode_header(header) for _, header in messages),
            ],
        )  # fmt: skip
        if answer != b"done":
            raise RefusedReleaseError(answer, self._marker)

    async def check_marker(self) -> None:
        """Queue the items that the streams never had or have lost, and those without progress."""
        await self._deployment.claim()  # the marker of another deployment says nothing
        self._marker = int(await self._redis.get(RELEASED) or 0)
        if self._number is not None and self._number <= self._marker:
            self._number = None  # another dispatcher has released since it was drawn
        lost = await self._releases.requeue_lost(self._marker)
        if lost:
            log.warning(
                "Released items were not in the streams, queued again",
                items=lost,
                marker=self._marker,
            )
        await self._rescue.requeue_stuck()
