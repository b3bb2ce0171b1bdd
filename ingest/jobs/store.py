"""Reading jobs: their state, their results in the order of the request, and lists of them."""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import asyncpg
import msgspec
from msgspec import Meta

from shared.jobs.model import JobStatus
from shared.pipeline.lanes import Lane
from shared.pipeline.outcomes import ItemState
from shared.service.parameters import JobId, Text
from shared.service.settings import Seconds

JOB_COLUMNS = """
job_id::text, kind, status, crawl_id, lane, collection, timeout, created_at, started_at,
finished_at, total, succeeded, failed, cancelled, chunks, inputs_saved
"""

_JOB = f"SELECT {JOB_COLUMNS} FROM webhook.jobs WHERE job_id = $1"

_RESULTS = """
SELECT position, url, state, stage, chunks, error, attempts,
       extract(epoch FROM finished_at
               - coalesce((stages #>> '{chunker,started_at}')::timestamptz, accepted_at))::float8
         * 1000 AS duration_ms
FROM webhook.job_items WHERE job_id = $1 AND position >= $2 ORDER BY position LIMIT $3
"""

# The newest first, ties by id. Conditions that are not set are left out: with `$1 IS NULL OR ...`
# no plan can use an index for them. `job_id` alone would be the text of the result.
_LIST = f"""
SELECT {JOB_COLUMNS} FROM webhook.jobs WHERE {{where}}
ORDER BY jobs.created_at DESC, jobs.job_id DESC LIMIT {{limit}}
"""


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one document of a job."""

    position: int
    success: bool | None  # None while open
    url: str | None
    status: str
    chunks: int | None
    error: str | None
    stage: str
    attempts: int
    duration_ms: float | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job without its results."""

    job_id: str
    kind: str
    status: JobStatus
    crawl_id: str | None
    lane: Lane
    collection: str
    timeout: float
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    total: int
    succeeded: int
    failed: int
    cancelled: int
    chunks: int  # of the documents that succeeded
    inputs_saved: int  # of these chunks, not sent to TEI


class JobPage(Job, frozen=True, kw_only=True):
    """A job with one page of its results; `next` is the offset of the next page."""

    results: list[JobResult]
    next: int | None


class JobCursor(str):
    """The last job of a page of the list: `<created_at>_<job_id>`, with a time zone."""

    __slots__ = ()
    expected: ClassVar[str] = "`next` of the previous page"
    schema: ClassVar[Mapping[str, Any]] = {"type": "string"}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for an invalid cursor."""
        created_at, _, job_id = text.partition("_")
        try:
            in_utc = dt.datetime.fromisoformat(created_at).astimezone(dt.UTC)
            msgspec.convert(job_id, JobId)
        except (ValueError, OverflowError):
            raise ValueError(f"expected {cls.expected}") from None
        return cls(f"{in_utc.isoformat()}_{job_id}")

    @property
    def key(self) -> tuple[dt.datetime, str]:
        """The creation time and the id of the job."""
        created_at, _, job_id = self.partition("_")
        return dt.datetime.fromisoformat(created_at), job_id


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a list of jobs; all conditions that are set must hold."""

    status: JobStatus | None = None
    crawl_id: Text | None = None
    older_than: Seconds | None = None  # since creation
    after: JobCursor | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Job]
    next: str | None


class JobStore:
    """The jobs in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def get(self, job_id: str) -> Job | None:
        row = await self._pool.fetchrow(_JOB, job_id)
        return msgspec.convert(dict(row), Job) if row is not None else None

    async def page(self, job_id: str, offset: int, limit: int) -> JobPage | None:
        """The job and its results from `offset` on, at most `limit`."""
        job = await self.get(job_id)
        if job is None:
            return None
        rows = await self._pool.fetch(_RESULTS, job_id, offset, limit)
        end = offset + len(rows)
        return JobPage(
            **msgspec.structs.asdict(job),
            results=[_result(row) for row in rows],
            next=end if end < job.total else None,
        )

    async def list(self, wanted: JobFilter) -> JobList:
        """Jobs, newest first."""
        where, arguments = conditions(wanted)
        rows = await self._pool.fetch(
            _LIST.format(where=where, limit=int(wanted.limit)), *arguments
        )
        jobs = [msgspec.convert(dict(row), Job) for row in rows]
        return JobList(jobs=jobs, next=_cursor(jobs[-1]) if len(jobs) == wanted.limit else None)


def conditions(wanted: JobFilter) -> tuple[str, list[Any]]:
    """The SQL condition on `webhook.jobs` and its arguments, from $1 on."""
    texts: list[str] = []
    arguments: list[Any] = []

    def add(text: str, *values: Any) -> None:
        first = len(arguments) + 1
        arguments.extend(values)
        texts.append(text.format(*(f"${first + n}" for n in range(len(values)))))

    if wanted.status is not None:
        add("status = {}", wanted.status)
        # Open jobs have an index of their own.
        add(f"finished_at IS {'NOT ' if wanted.status.is_terminal else ''}NULL")
    if wanted.older_than is not None:
        add("created_at < now() - make_interval(secs => {})", wanted.older_than)
    if wanted.crawl_id is not None:
        add("crawl_id = {}", wanted.crawl_id)
    if wanted.after is not None:
        add("(created_at, job_id) < ({}::timestamptz, {}::uuid)", *wanted.after.key)
    return " AND ".join(texts) or "true", arguments


def _cursor(job: Job) -> str:
    return f"{job.created_at.isoformat()}_{job.job_id}"


def _result(row: asyncpg.Record) -> JobResult:
    fields: dict[str, Any] = dict(row)
    state = ItemState(fields.pop("state"))
    return JobResult(
        **fields,
        status=status_of(state, fields["stage"]),
        success=state.is_success if state.is_final else None,
    )


def status_of(state: ItemState, stage: str) -> str:
    """The result status of an item that was last seen in `stage`."""
    if state.is_final:
        return state
    # An item that was queued for a retry is still in progress.
    return "queued" if stage == "ingest" else "running"
