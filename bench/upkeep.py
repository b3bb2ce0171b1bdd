"""Whether periodic and administrative statements grow with the tables: `make bench NAME=upkeep`.

Postgres with ROWS documents (1,000,000 unless given) and half as many items, and before that with a
quarter of both. Each row is a function of the product, with the time of its slowest statement and
the rows that it read. The last one picks items while a backup holds a snapshot.
"""

import argparse
import contextlib
import datetime as dt
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import asyncpg
from matplotlib.axes import Axes
from redis.asyncio import Redis

from bench import report
from bench.report import Report, rounded
from bench.rig import directory
from bench.rows_read import Reading, Statements, rows_read
from bench.upkeep_tables import CRAWL, RETENTION_S, fill
from cli.commands.serve import apply_migrations
from cli.doctor.probes import see_filled, see_work
from indexer.recovery import Recovery
from indexer.verifier import Verifier
from ingest.dispatch.release import Pick, Releases, Which
from ingest.dispatch.rescue import Rescue
from ingest.inspection.history import last_hour
from ingest.inspection.operations import OperationFilter, OperationReports
from ingest.inspection.streams import StreamInspector
from ingest.inspection.throughput import Throughput
from ingest.inspection.watch import PipelineWatch
from ingest.jobs.callbacks import Callbacks
from ingest.jobs.dead_letters import DeadLetters, LetterFilter
from ingest.jobs.prune import Scope, find_gone
from ingest.jobs.reindexes import Reindexes
from ingest.jobs.retention import Retention
from ingest.jobs.stats import StatsStore
from ingest.jobs.store import JobFilter, JobStore
from local.stack import Stack
from shared.jobs.model import JobStatus
from shared.jobs.registry import Registry
from shared.jobs.targets import Targets
from shared.pipeline.lanes import SMALL_SOURCE, Lane
from shared.service.clients import PostgresPool, postgres_pool, redis_command
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings, Seconds

LIMIT_S = 2.0  # for each statement
_ROWS = 1_000_000
_STAGE_S = 600.0
_RELEASED = 40_000  # items, while a backup holds its snapshot
_CACHE_S = 90 * 86400.0

Task = Callable[[], Awaitable[object]]


class _AllThere:
    """A point store that lacks nothing."""

    async def count_versions(self, _: str, versions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(versions, 1000)


def _tasks(pool: PostgresPool, redis: Redis) -> dict[str, Task]:
    """What runs by itself, or because a person asks; named after the module that it is in."""
    releases, jobs, targets = Releases(pool), JobStore(pool), Targets(pool)
    reindexes, recovery = Reindexes(pool), Recovery(pool, _STAGE_S)
    inspector = StreamInspector(redis, Throughput(redis))
    watch = PipelineWatch(inspector, redis, pool, Metrics().pipeline, 30)
    verifier = Verifier(pool, _AllThere(), _STAGE_S, rest=0.0)
    retention = Retention(pool, retention=RETENTION_S, cache_retention=_CACHE_S)
    lists = {
        f"jobs list --status {status}": functools.partial(jobs.list, JobFilter(status=status))
        for status in JobStatus
    }
    since = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    return {
        "pick": lambda: _pick(releases, Which.ANY),
        "pick of small sources": lambda: _pick(releases, Which.OF_SMALL_SOURCES),
        "depth": lambda: releases.depth(Lane.NORMAL),
        "lost releases": lambda: releases.requeue_lost(10**9),
        "rescue": Rescue(releases, redis, _STAGE_S).requeue_stuck,
        "reindexes": reindexes.in_progress,
        "callbacks": lambda: Callbacks(pool).claim(64, 60.0, per_host=4, in_flight={}),
        "watch": watch.look,
        "jobs list": lambda: jobs.list(JobFilter()),
        "jobs list --older-than": lambda: jobs.list(
            JobFilter(status=JobStatus.RUNNING, older_than=Seconds(20 * 86400))
        ),
        **lists,
        "dead list": lambda: DeadLetters(pool).list(LetterFilter()),
        "stats": lambda: StatsStore(pool).all(),
        "stats --crawl-id": lambda: StatsStore(pool).crawl(CRAWL),
        "prune": lambda: find_gone(pool, Scope(crawl_id="crawl-7", assume_completed=True), "docs"),
        "metrics of a day": lambda: OperationReports(pool).report(OperationFilter()),
        "metrics of an hour": lambda: last_hour(pool),
        "doctor": lambda: see_work(pool, RuntimeSettings()),
        "doctor: collections": lambda: see_filled(pool),
        "visibility": lambda: Registry(pool).changed_since("docs_1", since),
        "targets": lambda: _targets(targets),
        "verify": lambda: verifier.verify("lost_1", repair=True),
        "recovery begins": lambda: recovery.begin("lost_1"),
        "recovery": lambda: _recover(recovery),
        "recovery again": lambda: recovery.begin("lost_1"),
        "dropped collection": lambda: targets.forget_documents("dropped_1"),
        **{f"clean-up: {name}": part for name, part in retention.parts.items()},
    }


async def measure(documents: int) -> Report:
    """A quarter of the rows, then all."""
    sizes = (documents // 4, documents)
    small, large = [await _measured(size) for size in sizes]
    rows = [_row(name, small[name], large[name]) for name in large]
    figures = {
        "documents": documents,
        "statements": sum(len(reading.seconds) for reading in large.values()),
        "over_2_s": sum(second > LIMIT_S for r in large.values() for second in r.seconds),
        "growing": [row["what"] for row in rows if row["rows grow"] > 2 and row["rows"] > 10_000],
    }
    note = f"{__doc__}\n{documents} documents."
    return Report(figures=figures, rows=rows, note=note, plot=lambda axes: _plot(axes, rows))


async def _measured(documents: int) -> dict[str, Reading]:
    async with _postgres() as (url, pool, redis):
        async with pool.acquire() as connection:
            await fill(connection, documents)
            statements = Statements(connection)
        tasks = _tasks(pool, redis)
        found = {name: await _read(pool, statements, task) for name, task in tasks.items()}
        found["pick under a backup"] = await _under_backup(url, pool, statements)
        return found


@contextlib.asynccontextmanager
async def _postgres() -> AsyncIterator[tuple[str, PostgresPool, Redis]]:
    """A pool of one connection, so that the counts of rows are those of its statements."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("WEBHOOK_", "TEI_"))}
    with directory() as path:
        async with Stack(path / "data", environ, parts=("redis", "postgres")) as stack:
            url = stack.environment["WEBHOOK_DATABASE_URL"]
            await apply_migrations(url)
            pool = await postgres_pool(url, name="upkeep", max_size=1)
            redis = redis_command(stack.environment["WEBHOOK_REDIS_URL"])
            try:
                yield url, pool, redis
            finally:
                await redis.aclose()
                await pool.close()


async def _read(pool: PostgresPool, statements: Statements, task: Task) -> Reading:
    """Run a task, and return what its statements have cost."""
    before = await rows_read(pool)
    statements.reading = Reading()
    with contextlib.suppress(DependencyError):  # the time limit of the pool shows in the times
        await task()
    reading, statements.reading = statements.reading, Reading()
    reading.rows = await rows_read(pool) - before
    return reading


async def _pick(releases: Releases, which: Which) -> None:
    pick = Pick(
        lane=Lane.NORMAL, cursor="", sources=64, items=SMALL_SOURCE, which=which,
        travels_in=Lane.NORMAL,
    )  # fmt: skip
    await releases.release(pick, await releases.next_number(0))


async def _targets(targets: Targets) -> None:
    await targets.in_use()
    await targets.retired()
    await targets.dropped()
    await targets.claim_scrub(3600)


async def _recover(recovery: Recovery) -> None:
    while (progress := await recovery.queue_slice("lost_1")) and not progress.is_last:
        pass


async def _under_backup(url: str, pool: PostgresPool, statements: Statements) -> Reading:
    """Pick once more, after many releases since a snapshot was taken."""
    backup = await asyncpg.connect(url)
    try:
        async with backup.transaction(isolation="repeatable_read"):
            await backup.fetch("SELECT count(*) FROM webhook.targets")
            releases = Releases(pool)
            for _ in range(_RELEASED // (64 * SMALL_SOURCE) + 1):
                await _pick(releases, Which.ANY)
            return await _read(pool, statements, lambda: _pick(releases, Which.ANY))
    finally:
        await backup.close()


def _row(name: str, small: Reading, large: Reading) -> report.Row:
    return {
        "what": name,
        "statements": len(large.seconds),
        "slowest ms": rounded(1000 * large.slowest_s),
        "rows": round(large.rows_a_statement),
        "rows grow": rounded(large.rows_a_statement / max(1.0, small.rows_a_statement)),
        "time grows": rounded(large.slowest_s / max(0.001, small.slowest_s)),
    }


def _plot(axes: Axes, rows: Sequence[report.Row]) -> None:
    axes.barh([row["what"] for row in rows], [row["slowest ms"] for row in rows])
    axes.axvline(1000 * LIMIT_S, linestyle=":", color="black")
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelsize=6)
    axes.set_xlabel("slowest statement, ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=_ROWS)
    chosen = parser.parse_args()
    report.run("upkeep", lambda: measure(chosen.rows))
