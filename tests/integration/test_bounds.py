"""No periodic statement reads more the larger the tables are: plans, and rows of a statement."""

import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import pytest
import pytest_asyncio

from bench.rows_read import Reading, Statements, rows_read
from cli.doctor.probes import see_work
from indexer.recovery import Recovery
from indexer.verifier import Verifier
from ingest.jobs.retention import Retention
from ingest.jobs.store import JobCursor, JobFilter, JobStore
from ingest.upkeep.housekeeping import Housekeeper
from shared.jobs.model import JobStatus
from shared.jobs.targets import Targets
from shared.service.clients import PostgresPool, postgres_pool
from tests.support.stage_harness import Servers, accept_documents, end, release, runtime_settings

pytestmark = pytest.mark.asyncio(loop_scope="session")

MONTH, CACHE = 30 * 86400.0, 90 * 86400.0
LARGE = (
    "documents",
    "job_items",
    "jobs",
    "payloads",
    "dead_letters",
    "embedding_cache",
    "idempotency_keys",
)
SCAN = re.compile(r"Seq Scan on (\w+)")
# The planner multiplies the rows of a page with the pages of the file: a million rows each.
_GROW = """
UPDATE pg_class SET reltuples = 1e6, relpages = 1
WHERE relnamespace = 'webhook'::regnamespace AND relkind IN ('r', 'i')
"""

# What other tests had in the tables must not decide either.
_FORGET_VALUES = """
DELETE FROM pg_statistic WHERE starelid IN (
  SELECT oid FROM pg_class WHERE relnamespace = 'webhook'::regnamespace)
"""

_REFUSING = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE query_canceled; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON webhook.jobs FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""

Work = Callable[[PostgresPool], Awaitable[object]]


class AllThere:
    async def count_versions(self, _: str, versions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(versions, 1000)


@pytest_asyncio.fixture(loop_scope="session")
async def pool(servers: Servers) -> AsyncIterator[PostgresPool]:
    """A pool of one connection."""
    only = await postgres_pool(servers.database_url, name="bounds", max_size=1)
    yield only
    await only.close()


async def read(pool: PostgresPool, work: Work) -> Reading:
    """The statements of `work`."""
    async with pool.acquire() as connection:
        statements = Statements(connection)
    await work(pool)
    found, statements.reading = statements.reading, Reading()
    return found


async def plans(pool: PostgresPool, reading: Reading) -> list[str]:
    """The plans of these statements, if all tables had a million rows."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(_GROW)
            await connection.execute(_FORGET_VALUES)
            explained = [
                await connection.fetch(f"EXPLAIN {each.query}", *each.args)
                for each in reading.queries
            ]
        finally:
            await transaction.rollback()
    return ["\n".join(row[0] for row in rows) for rows in explained]


async def scanned(pool: PostgresPool, reading: Reading) -> set[str]:
    """The large tables that these statements would read as a whole."""
    return set(LARGE) & {
        table for plan in await plans(pool, reading) for table in SCAN.findall(plan)
    }


async def finished_job(servers: Servers, documents: int, *, days: int = 40) -> str:
    """A job whose documents are all indexed, and live nowhere any more."""
    job_id = await accept_documents(servers, documents)
    await end(servers, await release(servers, job_id))
    await servers.pool.execute(
        "UPDATE webhook.jobs SET finished_at = now() - make_interval(days => $2) WHERE job_id = $1",
        job_id, days,
    )  # fmt: skip
    return job_id


def retention(pool: PostgresPool, rows: int = 500) -> Retention:
    return Retention(pool, retention=MONTH, cache_retention=CACHE, rows=rows)


@pytest.mark.parametrize("part", list(Retention(None, retention=1, cache_retention=1).parts))  # type: ignore[arg-type]
async def test_no_part_of_the_clean_up_reads_a_whole_table(
    servers: Servers, pool: PostgresPool, part: str
) -> None:
    await fill(servers)
    reading = await read(pool, lambda only: retention(only).parts[part]())
    assert reading.queries
    assert not await scanned(pool, reading)


@pytest.mark.parametrize(
    ("part", "index"),
    [("embeddings", "embedding_cache_by_use"), ("keys", "idempotency_keys_expiry")],
)
async def test_the_oldest_rows_are_found_by_an_index(
    servers: Servers, pool: PostgresPool, part: str, index: str
) -> None:
    """Before, a slice could read the table from its beginning, past all rows deleted before."""
    await fill(servers)
    reading = await read(pool, lambda only: retention(only).parts[part]())
    assert all(f"Index Scan using {index}" in plan for plan in await plans(pool, reading))


async def test_verification_and_recovery_read_no_whole_table(
    servers: Servers, pool: PostgresPool
) -> None:
    await fill(servers)

    async def work(only: PostgresPool) -> None:
        await Verifier(only, AllThere(), 600, rest=0).verify("docs_1", repair=True)
        recovery = Recovery(only, 600, rows=2)
        await recovery.begin("docs_1")
        while await recovery.open():
            await recovery.queue_slice("docs_1")

    reading = await read(pool, work)
    assert not await scanned(pool, reading)


async def fill(servers: Servers) -> None:
    """A few rows in each large table: the planner expects none in a file without a page."""
    await finished_job(servers, 3)
    await documents(servers, 5, is_live=True)
    for statement in (
        "INSERT INTO webhook.dead_letters (stage, code, error) VALUES ('chunker', 'x', 'y')",
        "INSERT INTO webhook.embedding_cache VALUES ('k', 'v', '2020-01-01')",
        "INSERT INTO webhook.idempotency_keys VALUES ('s', 'k', '', gen_random_uuid(), now())",
    ):
        await servers.pool.execute(statement)


async def documents(servers: Servers, count: int, *, is_live: bool) -> None:
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence, live_version, content_hash) "
        "SELECT 'docs_1', gen_random_uuid(), n, CASE WHEN $2 THEN n END, CASE WHEN $2 THEN '\\x01'::bytea END "
        "FROM generate_series(1, $1::int) n",
        count, is_live,
    )  # fmt: skip


async def test_a_pass_over_deleted_documents_reads_as_few_at_once_as_over_visible_ones(
    servers: Servers, pool: PostgresPool
) -> None:
    """Before, one statement looked for 500 visible documents, however many deleted ones it passed."""
    await documents(servers, 20, is_live=False)
    verifier = Verifier(pool, AllThere(), 600, rest=0, rows=5)
    reading = await read(pool, lambda _: verifier.verify("docs_1", repair=True))
    assert len(reading.queries) == 20 / 5 + 1


async def test_a_large_job_is_deleted_by_several_statements(
    servers: Servers, pool: PostgresPool
) -> None:
    large, small = await finished_job(servers, 23, days=50), await finished_job(servers, 2)
    recent = await finished_job(servers, 2, days=1)
    reading = await read(pool, lambda only: retention(only, rows=10).parts["jobs"]())
    assert len(reading.queries) >= 25 / 10
    jobs = await servers.pool.fetch("SELECT job_id::text FROM webhook.jobs")
    assert {row["job_id"] for row in jobs} == {recent} - {large, small}
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.job_items") == 2
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.payloads") == 2


async def test_jobs_that_are_kept_do_not_hide_those_after_them(
    servers: Servers, pool: PostgresPool
) -> None:
    kept = []
    for _ in range(4):
        kept.append(await accept_documents(servers, 1))
        await end(servers, await release(servers, kept[-1]), code="tei_error")
    await servers.pool.execute("UPDATE webhook.jobs SET finished_at = now() - interval '60 days'")
    await finished_job(servers, 1)
    await retention(pool, rows=2).parts["jobs"]()
    jobs = await servers.pool.fetch("SELECT job_id::text FROM webhook.jobs")
    assert {row["job_id"] for row in jobs} == set(kept)


async def test_texts_that_nothing_needs_are_deleted_slice_by_slice(
    servers: Servers, pool: PostgresPool
) -> None:
    job_id = await accept_documents(servers, 3)
    # The newest ones are in each round, wherever it begins.
    newest = 1000 + await servers.pool.fetchval("SELECT max(version) FROM webhook.payloads")
    await servers.pool.execute(
        "INSERT INTO webhook.payloads "
        "SELECT $1 + n, gen_random_uuid(), '' FROM generate_series(1, 5) n",
        newest,
    )
    live, failed = newest + 3, newest + 4
    await servers.pool.execute(
        "INSERT INTO webhook.documents (target, document_id, fence, live_version) "
        "VALUES ('t', $1, $2, $2)",
        str(uuid.uuid4()), live,
    )  # fmt: skip
    await servers.pool.execute(
        "INSERT INTO webhook.dead_letters (version, stage, code, error) "
        "VALUES ($1, 'chunker', 'x', 'y')",
        failed,
    )
    reading = await read(pool, lambda only: retention(only, rows=2).parts["texts"]())
    assert len(reading.queries) >= 1 + 5 / 2
    left = {
        row["version"] for row in await servers.pool.fetch("SELECT version FROM webhook.payloads")
    }
    mine = {row["version"] for row in await servers.pool.fetch(
        "SELECT version FROM webhook.job_items WHERE job_id = $1", job_id
    )}  # fmt: skip
    assert left == mine | {live, failed}


async def test_dead_letters_that_are_kept_do_not_hide_those_after_them(
    servers: Servers, pool: PostgresPool
) -> None:
    await servers.pool.execute(
        "INSERT INTO webhook.dead_letters (job_id, stage, code, error, created_at, replayed_at) "
        "SELECT gen_random_uuid(), 'chunker', 'x', 'y', now() - interval '40 days', "
        "CASE WHEN n > 5 THEN now() END FROM generate_series(1, 8) n"
    )
    await retention(pool, rows=2).parts["dead letters"]()
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.dead_letters") == 5


async def test_a_part_that_fails_does_not_end_the_round(servers: Servers) -> None:
    """Before, a statement that took too long ended the whole round, in each round again."""
    await finished_job(servers, 1)
    await servers.pool.execute(
        "INSERT INTO webhook.idempotency_keys VALUES ('s', 'k', '', gen_random_uuid(), now() - interval '1 day')"
    )
    await servers.pool.execute(_REFUSING)
    try:
        keeper = Housekeeper(servers.pool, retention=MONTH, cache_retention=CACHE)
        await keeper.clean_up(dt.datetime.now(dt.UTC).date())
    finally:
        await servers.pool.execute("DROP FUNCTION public.refuse CASCADE")
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.jobs") == 1
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.idempotency_keys") == 0


async def test_looking_at_an_open_recovery_does_not_read_what_is_queued(
    servers: Servers, pool: PostgresPool
) -> None:
    """Before, each look, every ten seconds, read all documents that the recovery had passed."""
    await accept_documents(servers, 1)
    await documents(servers, 60, is_live=True)
    await pool.execute("SET enable_seqscan = off")  # as with a large table
    recovery = Recovery(pool, 600, rows=50)
    assert await recovery.begin("docs_1")
    await recovery.queue_slice("docs_1")
    before = await rows_read(pool)
    assert not await recovery.begin("docs_1")
    assert await rows_read(pool) - before < 10


async def test_the_doctor_reads_no_whole_table(servers: Servers, pool: PostgresPool) -> None:
    """Before, it read the items of all open jobs, and reached its time limit with a large backlog."""
    await fill(servers)
    reading = await read(pool, lambda only: see_work(only, runtime_settings()))
    assert not await scanned(pool, reading)


async def test_a_pass_sorts_no_documents(servers: Servers, pool: PostgresPool) -> None:
    """Before, each slice sorted all documents that were left, as texts."""
    await fill(servers)
    verifier = Verifier(pool, AllThere(), 600, rest=0)
    reading = await read(pool, lambda _: verifier.verify("docs_1", repair=False))
    assert all("Index Scan using documents_pkey" in plan for plan in await plans(pool, reading))
    assert not any("Sort" in plan for plan in await plans(pool, reading))


async def test_a_dropped_target_is_forgotten_without_a_join(
    servers: Servers, pool: PostgresPool
) -> None:
    """Before, each statement read all documents of the target that were left."""
    await fill(servers)
    reading = await read(pool, lambda only: Targets(only).forget_documents("docs_1"))
    for plan in await plans(pool, reading):
        assert "Tid Scan on documents" in plan
        assert "Index Scan using documents_pkey" in plan
    assert await servers.pool.fetchval("SELECT count(*) FROM webhook.documents") == 0


@pytest.mark.parametrize("status", [None, JobStatus.RUNNING])
async def test_a_list_of_jobs_comes_in_the_order_of_an_index(
    servers: Servers, pool: PostgresPool, status: JobStatus | None
) -> None:
    """Before, it was sorted by the text of the ids, and a list of the open jobs read all others."""
    await fill(servers)
    cursor = JobCursor.parse(f"2026-01-01T00:00:00Z_{uuid.uuid4()}")
    wanted = JobFilter(status=status, after=cursor)
    reading = await read(pool, lambda only: JobStore(only).list(wanted))
    [plan] = await plans(pool, reading)
    assert ("using jobs_open" if status else "using jobs_by_age") in plan
    assert "Presorted Key: created_at" in plan
    assert "::text" not in plan.partition("Presorted")[0]
