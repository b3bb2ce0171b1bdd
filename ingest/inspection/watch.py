"""Watches the pipeline as a whole: streams, backlog and dead letters, for the metrics and for the
page.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from ingest.inspection.stage_health import Stages, stages_of, with_stages
from ingest.inspection.streams import LaneState, StreamInspector, StreamStates, redis_errors
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.pipeline.waits import WAITS, WorkerWaits, decode_waits
from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError
from shared.service.health import HealthReport
from shared.service.metrics import PipelineGauges

log = structlog.get_logger()

INTERVAL = 2.0  # seconds; one reading takes 37 small commands of Redis and two bounded counts
COUNTED = 100_000  # rows; counting a million each time would cost too much

_BACKLOG = f"""
SELECT l.lane, queued.documents, queued.due
FROM unnest($1::text[]) AS l(lane), LATERAL (
  SELECT count(*) AS documents, count(*) FILTER (WHERE due_at <= now()) AS due
  FROM (SELECT due_at FROM webhook.job_items WHERE state = 'queued' AND lane = l.lane
        LIMIT {COUNTED}) counted) queued
"""

_DEAD_LETTERS = f"""
SELECT count(*) FROM (
  SELECT 1 FROM webhook.dead_letters WHERE replayed_at IS NULL LIMIT {COUNTED}) open
"""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline at one moment. Parts that could not be read are None."""

    streams: StreamStates | None
    stages: Stages | None  # workers, and the dependencies they wait for
    backlog: dict[Lane, int] | None  # documents waiting in Postgres, counted up to 100,000 per lane
    dead_letters: int | None  # not replayed, counted up to 100,000


class PipelineWatch:
    """Reads the state every two seconds and keeps the latest."""

    def __init__(
        self,
        inspector: StreamInspector,
        redis: Redis,
        pool: PostgresPool,
        gauges: PipelineGauges,
        lease: float,
    ) -> None:
        """`lease` in seconds: a consumer idle for longer is dead."""
        self._inspector = inspector
        self._redis = redis
        self._lease = lease
        self._pool = pool
        self._gauges = gauges
        self.latest = Overview(streams=None, stages=None, backlog=None, dead_letters=None)

    async def run(self) -> None:
        """Read until cancelled; a dependency that is unavailable is read again."""
        while True:
            self.latest = await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> Overview:
        """Read once, and set the metrics."""
        streams, stages, backlog, dead_letters = None, None, None, None
        try:
            streams = await self._inspector.streams()
            self._show_streams(streams)
            with redis_errors():
                stages = stages_of(streams, await read_waits(self._redis), self._lease)
        except DependencyError as error:
            log.debug("Streams not seen", error=str(error))
        try:
            rows = await self._pool.fetch(_BACKLOG, list(Lane))
            dead_letters = int(await self._pool.fetchval(_DEAD_LETTERS))
            backlog = {Lane(row["lane"]): row["documents"] for row in rows}
            due = {Lane(row["lane"]): row["due"] for row in rows}
            self._show_backlog(backlog, due, dead_letters)
        except DependencyError as error:
            log.debug("Backlog not seen", error=str(error))
        return Overview(streams=streams, stages=stages, backlog=backlog, dead_letters=dead_letters)

    def complete(self, report: HealthReport) -> HealthReport:
        """The health report of ingest, with the latest state of the stages."""
        return with_stages(report, self.latest.stages)

    def _show_streams(self, states: StreamStates) -> None:
        for state in states.stages:
            for lane in state.lanes:
                self._show_lane(state.stage, lane)

    def _show_lane(self, stage: StageName, lane: LaneState) -> None:
        labels = (stage, lane.lane)
        self._gauges.stream_depth.labels(*labels).set(lane.depth)
        self._gauges.stream_pending.labels(*labels).set(lane.pending)
        self._gauges.stream_oldest_pending.labels(*labels).set((lane.oldest_idle_ms or 0) / 1000)
        self._gauges.stream_consumers.labels(*labels).set(len(lane.consumers))

    def _show_backlog(
        self, backlog: Mapping[Lane, int], due: Mapping[Lane, int], dead_letters: int
    ) -> None:
        for lane, documents in backlog.items():
            self._gauges.backlog.labels(lane).set(documents)
            self._gauges.due.labels(lane).set(due[lane])
        self._gauges.dead_letters.set(dead_letters)


async def read_waits(redis: Redis) -> list[WorkerWaits]:
    """The reports of all workers that wait for a dependency. Raises RedisError and OSError."""
    reports: Any = await redis.hgetall(WAITS)
    return [waits for value in reports.values() if (waits := decode_waits(value)) is not None]
