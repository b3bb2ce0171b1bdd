"""Inspecting the work streams: depth and lag, pending entries and their consumers, idle times.

Reads only: claims no entry and counts no delivery. Bodies (texts and vectors) never leave Redis.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ingest.inspection.throughput import Throughput
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Header, MalformedMessageError, NewerSchemaError, decode_header
from shared.pipeline.stages import OPERATOR, StageName
from shared.runtime.streams.lua import script
from shared.service.errors import DependencyError, is_missing_group

_ENTRY_ID = "[0-9]{1,19}-[0-9]{1,19}"  # Redis takes numbers of 64 bits
EntryId = Annotated[str, Meta(pattern=rf"\A{_ENTRY_ID}\Z", description="the id of a stream entry")]

_MAX_PENDING_SCANNED = 10_000  # entries of one stream; the gates keep it far below
_HEADERS_AT_ONCE = (
    16  # the script copies whole entries, with their bodies, before it picks the headers
)
_CURSOR = re.compile(rf"(high|normal|low)_({_ENTRY_ID})")


class ConsumerState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    pending: int
    idle_ms: int  # since it last asked for entries
    inactive_ms: int | None  # since it last got one; None if it never did, or if unknown


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. Counts are entries, that is, batch messages."""

    lane: Lane
    stream: str
    depth: int  # waiting and pending
    lag: int | None = None  # given to no consumer yet; None if Redis lost count
    pending: int = 0
    oldest_age_ms: int | None = None  # since the oldest entry was added
    oldest_idle_ms: int | None = (
        None  # longest time since a pending entry was delivered or its lease renewed
    )
    redeliveries: int = 0  # pending entries that were delivered more than once
    consumers: list[ConsumerState] = []  # workers, without operators


class StageState(msgspec.Struct, frozen=True, kw_only=True):
    stage: StageName
    rate_per_s: float | None  # batch messages that left the stage, over the last minute
    eta_s: float | None  # until its streams are empty at this rate, if nothing is added
    lanes: list[LaneState]


class StreamStates(msgspec.Struct, frozen=True, kw_only=True):
    stages: list[StageState]


class PendingEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that a consumer holds. Without jobs and urls if its header is unreadable."""

    id: str
    lane: Lane
    consumer: str
    idle_ms: int
    deliveries: int  # including those before a split
    job_id: str | None  # of the first document
    job_ids: list[str]  # of all documents
    urls: list[str]


class PendingCursor(str):
    """The last entry of a page of pending entries: `<lane>_<entry id>`."""

    __slots__ = ()
    expected: ClassVar[str] = "`next` of the previous page"
    schema: ClassVar[Mapping[str, Any]] = {"type": "string"}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for an invalid cursor."""
        if not _CURSOR.fullmatch(text):
            raise ValueError(f"expected {cls.expected}")
        return cls(text)

    @property
    def position(self) -> tuple[Lane, str]:
        """The lane, and the start for XPENDING."""
        lane, _, entry_id = self.partition("_")
        return Lane(lane), f"({entry_id}"


class PendingPage(msgspec.Struct, frozen=True, kw_only=True):
    stage: StageName
    entries: list[PendingEntry]
    next: str | None  # `after` of the next page


class StreamInspector:
    """The state of the work streams. Raises DependencyError when Redis is unavailable."""

    def __init__(self, redis: Redis, throughput: Throughput) -> None:
        self._redis = redis
        self._throughput = throughput
        self._headers = redis.register_script(script("headers"))
        self._ages = redis.register_script(script("oldest"))

    async def streams(self) -> StreamStates:
        """Every stage and lane; a missing stream or group counts as empty."""
        pipeline = self._redis.pipeline(transaction=False)
        places = [(stage, lane) for stage in StageName for lane in Lane]
        for stage, lane in places:
            stream = stage.stream(lane)
            pipeline.xlen(stream)
            pipeline.xinfo_groups(stream)
            pipeline.xpending_range(stream, stage, "-", "+", _MAX_PENDING_SCANNED)
            pipeline.xinfo_consumers(stream, stage)
        with redis_errors():
            answers = await pipeline.execute(raise_on_error=False)
            ages: Any = await self._ages(keys=[stage.stream(lane) for stage, lane in places])
            lanes = [
                msgspec.structs.replace(
                    _lane_state(stage, lane, *answers[4 * i : 4 * i + 4]),
                    oldest_age_ms=ages[i] if ages[i] >= 0 else None,
                )
                for i, (stage, lane) in enumerate(places)
            ]
        size = len(Lane)
        return StreamStates(
            stages=[
                self._stage_state(stage, lanes[i * size : (i + 1) * size])
                for i, stage in enumerate(StageName)
            ]
        )

    async def pending(
        self,
        stage: StageName,
        *,
        idle_over: float = 0.0,
        after: PendingCursor | None = None,
        limit: int = 100,
    ) -> PendingPage:
        """Pending entries by lane, oldest first, idle for at least `idle_over` seconds."""
        first_lane, start = after.position if after is not None else (next(iter(Lane)), "-")
        idle_ms = int(idle_over * 1000)
        entries: list[PendingEntry] = []
        with redis_errors():
            for lane in list(Lane)[list(Lane).index(first_lane) :]:
                if len(entries) < limit:
                    rows = await self._rows(stage, lane, start, idle_ms, limit - len(entries))
                    entries += await self._entries(stage, lane, rows)
                start = "-"
        last = entries[-1] if len(entries) == limit else None
        return PendingPage(
            stage=stage, entries=entries, next=f"{last.lane}_{last.id}" if last else None
        )

    def _stage_state(self, stage: StageName, lanes: list[LaneState]) -> StageState:
        rate = self._throughput.per_second(stage)
        return StageState(
            stage=stage,
            rate_per_s=rate,
            eta_s=eta(sum(lane.depth for lane in lanes), rate),
            lanes=lanes,
        )

    async def _rows(
        self, stage: StageName, lane: Lane, start: str, idle_ms: int, count: int
    ) -> Any:
        try:
            return await self._redis.xpending_range(
                stage.stream(lane), stage, start, "+", count, idle=idle_ms
            )
        except ResponseError as error:
            return _existing(error)

    async def _entries(
        self, stage: StageName, lane: Lane, rows: list[dict[str, Any]]
    ) -> list[PendingEntry]:
        ids = [row["message_id"].decode() for row in rows]
        headers: list[bytes | None] = []
        for i in range(0, len(ids), _HEADERS_AT_ONCE):
            answer: Any = await self._headers(
                keys=[stage.stream(lane)], args=ids[i : i + _HEADERS_AT_ONCE]
            )
            headers += answer
        return [pending_entry(lane, row, header) for row, header in zip(rows, headers, strict=True)]


def pending_entry(lane: Lane, row: dict[str, Any], header: bytes | None) -> PendingEntry:
    """A row of XPENDING, with the content of the header of its entry."""
    known = _readable(header)
    documents = known.documents if known else ()
    return PendingEntry(
        id=row["message_id"].decode(),
        lane=lane,
        consumer=row["consumer"].decode(errors="replace"),
        idle_ms=row["time_since_delivered"],
        deliveries=row["times_delivered"] + (known.deliveries if known else 0),
        job_id=documents[0].job_id if documents else None,
        job_ids=list(dict.fromkeys(document.job_id for document in documents)),
        urls=[document.url for document in documents],
    )


def eta(depth: int, rate: float | None) -> float | None:
    """Seconds until `depth` entries have left; None if the rate is 0 or unknown."""
    if depth == 0:
        return 0.0
    return depth / rate if rate else None


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Turn every error of Redis into DependencyError."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise DependencyError("redis", f"{type(error).__name__}: {error}") from error


def _lane_state(
    stage: StageName, lane: Lane, depth: Any, groups: Any, pending: Any, consumers: Any
) -> LaneState:
    depth = _checked(depth)
    # XINFO GROUPS fails for a stream that does not exist; XLEN returns 0.
    groups = [] if depth == 0 and isinstance(groups, ResponseError) else _checked(groups)
    group = next((each for each in groups if each["name"] == stage.encode()), None)
    if group is None:
        return LaneState(lane=lane, stream=stage.stream(lane), depth=depth, lag=depth)
    rows, members = _existing(pending), _existing(consumers)
    return LaneState(
        lane=lane,
        stream=stage.stream(lane),
        depth=depth,
        lag=group["lag"],
        pending=group["pending"],
        oldest_idle_ms=max((row["time_since_delivered"] for row in rows), default=None),
        redeliveries=sum(row["times_delivered"] > 1 for row in rows),
        consumers=[
            _consumer_state(each)
            for each in members
            if not each["name"].startswith(OPERATOR.encode())
        ],
    )


def _consumer_state(member: dict[str, Any]) -> ConsumerState:
    inactive = member.get("inactive", -1)  # since Redis 7.2; -1: received no entry yet
    return ConsumerState(
        name=member["name"].decode(errors="replace"),
        pending=member["pending"],
        idle_ms=member["idle"],
        inactive_ms=inactive if inactive >= 0 else None,
    )


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _existing(answer: Any) -> Any:
    """The answer about a group; empty if the group or its stream does not exist."""
    return (
        [] if isinstance(answer, ResponseError) and is_missing_group(answer) else _checked(answer)
    )


def _readable(header: bytes | None) -> Header | None:
    try:
        return decode_header(header)
    except (MalformedMessageError, NewerSchemaError):
        return None
