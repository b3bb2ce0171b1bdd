"""Whether a document costs more in a larger backlog: `make bench NAME=growth`.

Crawls of 400, 800 and 1,600 pages in mode `tei`, each on a new pipeline, median of 3. Then the
release rate of the dispatcher with 1,000 to 1,000,000 queued items of 200 sources, into streams
that are trimmed at once. Then the time of jobs with five documents, alone and beside a crawl of
50,000 in the same lane, medians of 5.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Sequence

from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page, chunked, load_pages
from bench.report import Report, rounded
from bench.rig import Pipeline, Round, running_pipeline, stand_in
from local.services import SERVICES
from shared.pipeline.stages import StageName
from shared.service.clients import redis_command

_PAGES = (400, 800, 1600)
_ROUNDS = 3
_QUEUED = (1_000, 100_000, 1_000_000)
_SOURCES = 200
_MEASURED = 20_000  # items released, if there are as many
_CRAWL = 50_000
_SMALL_JOB = 5
_SMALL_JOBS = 5
_STARTED = 500  # documents of the crawl that ended; its messages fill the streams by then

# Items as ingest writes them, of almost empty pages.
_FILL = """
WITH job AS (
  INSERT INTO webhook.jobs (job_id, kind, lane, collection, timeout, total)
  VALUES (gen_random_uuid(), 'index_document_batch_job', 'normal', 'pulse_docs', 600, $1)
  RETURNING job_id
), item AS (
  INSERT INTO webhook.job_items
    (job_id, position, state, lane, source, domain, collection, document_id, version, url)
  SELECT job_id, n, 'queued', 'normal', 'source-' || n % $2, 'fill.example', 'pulse_docs',
         gen_random_uuid(),
         nextval('webhook.document_version'), 'https://fill.example/' || n
  FROM job, generate_series(1, $1) AS n RETURNING version, document_id, url
)
INSERT INTO webhook.payloads (version, document_id, body)
SELECT version, document_id,
       convert_to(json_build_object('page', json_build_object(), 'markdown', url)::text, 'UTF8')
FROM item
"""

_ENDED = "SELECT count(*) FROM webhook.job_items WHERE finished_at IS NOT NULL"


async def measure() -> Report:
    rounds = {count: [await _crawl(load_pages(count)) for _ in range(_ROUNDS)] for count in _PAGES}
    rates = {queued: await _dispatch(queued) for queued in _QUEUED}
    alone, behind = await _small_job()
    rows = [_row(count, rounds[count]) for count in _PAGES]
    figures = {
        "cpu_growth": rounded(rows[-1]["CPU s/1,000 chunks"] / rows[0]["CPU s/1,000 chunks"]),
        "rss_growth": rounded(
            max(rows[-1][_peak(service)] / rows[0][_peak(service)] for service in SERVICES)
        ),
        "dispatch_per_s": {str(queued): round(rate) for queued, rate in rates.items()},
        "small_job_behind_crawl": rounded(behind / alone),
    }
    return Report(
        figures=figures, rows=rows, note=__doc__ or "", plot=lambda axes: _plot(axes, rates)
    )


async def _crawl(pages: Sequence[Page]) -> Round:
    async with _stood_in() as pipeline:
        return await pipeline.index(pages)


@contextlib.asynccontextmanager
async def _stood_in() -> AsyncIterator[Pipeline]:
    async with stand_in("tei", "--mode", "tei") as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            yield pipeline


async def _dispatch(queued: int) -> float:
    """Items released a second, with ingest alone and a reader that only trims the streams."""
    others = dict.fromkeys(("chunker", "embedder", "indexer"), 0)
    async with running_pipeline({}, others) as pipeline:
        await pipeline.send(load_pages(1))  # creates the target
        await pipeline.connection.execute(_FILL, queued, _SOURCES, timeout=600)
        await pipeline.connection.execute("ANALYZE webhook.job_items")
        released = before = await _released(pipeline)
        emptying = asyncio.create_task(_empty(pipeline.redis_url))
        started = time.monotonic()
        while released - before < min(_MEASURED, queued - before):
            await asyncio.sleep(0.02)
            released = await _released(pipeline)
        seconds = time.monotonic() - started
        emptying.cancel()
        await asyncio.wait([emptying])
        return (released - before) / seconds


async def _released(pipeline: Pipeline) -> int:
    sql = "SELECT count(*) FROM webhook.job_items WHERE state = 'released'"
    return int(await pipeline.connection.fetchval(sql))


async def _empty(url: str) -> None:
    """Trim the chunk streams as fast as they fill."""
    async with redis_command(url) as redis:
        while True:
            for stream in StageName.CHUNKER.streams:
                await redis.xtrim(stream, maxlen=0, approximate=False)


async def _small_job() -> tuple[float, float]:
    """Seconds for five documents of the normal lane, alone and behind a crawl."""
    first, *pages = load_pages(1 + 2 * _SMALL_JOBS * _SMALL_JOB)
    jobs = [pages[start : start + _SMALL_JOB] for start in range(0, len(pages), _SMALL_JOB)]
    async with _stood_in() as pipeline:
        await pipeline.index_each([first], lane="normal")  # creates the collection
        alone = [await pipeline.index_each(job, lane="normal") for job in jobs[:_SMALL_JOBS]]
        await pipeline.connection.execute(_FILL, _CRAWL, 1, timeout=600)
        # Postgres gives no event to wait for.
        while await pipeline.connection.fetchval(_ENDED) < _STARTED:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        behind = [await pipeline.index_each(job, lane="normal") for job in jobs[_SMALL_JOBS:]]
        return statistics.median(alone), statistics.median(behind)


def _row(count: int, rounds: Sequence[Round]) -> report.Row:
    chunks = sum(len(page.chunks) for page in chunked(load_pages(count)))
    return {
        "pages": count,
        "chunks": chunks,
        "seconds": statistics.median(round_.seconds for round_ in rounds),
        "CPU s/1,000 chunks": statistics.median(1000 * round_.cpu_s / chunks for round_ in rounds),
        **{
            _peak(service): statistics.median(r.usage[service].peak_mb for r in rounds)
            for service in SERVICES
        },
    }


def _peak(service: str) -> str:
    return f"{service} peak MB"


def _plot(axes: Axes, rates: dict[int, float]) -> None:
    axes.semilogx(list(rates), list(rates.values()), marker="o")
    axes.set_ylim(0)
    axes.set_xlabel("items queued, of 200 sources")
    axes.set_ylabel("items released a second")


if __name__ == "__main__":
    report.run("growth", measure)
