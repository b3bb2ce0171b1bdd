"""Search times with 20,000 chunks, alone and while pages are indexed: `make bench NAME=search`.

The embedded stack with default settings, on the machine of the searcher. 5 hybrid searches a second
for a minute by POST /api/search of ingest, each for the title of another page, so that every query
is embedded. Time counts from when a search was due. In the second minute the pipeline indexes the
pages again, with one more sentence in every paragraph. The collection holds every page four times,
under different hosts: equal texts are embedded once.
"""

import asyncio
import itertools
import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import aiohttp
import msgspec
from matplotlib.axes import Axes

from bench import report
from bench.pages import Page, load_pages, with_changed_paragraphs
from bench.report import Report, rounded
from bench.rig import Pipeline, running_pipeline

_CHUNKS = 20_000
_MIRRORS = 4
_PAGES_AT_ONCE = 50
_PER_SECOND = 5
_SECONDS = 60
_WARM_UP = 20  # searches

_STORED = "SELECT coalesce(sum(chunks), 0) FROM webhook.documents WHERE live_version IS NOT NULL"
_TIMED = re.compile(r"(\w+);dur=([\d.]+)")


class Search(msgspec.Struct, frozen=True):
    """One search: milliseconds from its due time to its answer, and the time of each part."""

    whole_ms: float
    parts_ms: Mapping[str, float]
    is_degraded: bool  # TEI took over 5 s

    @property
    def lasting_ms(self) -> dict[str, float]:
        """The share of each part. The keyword side runs in parallel: only its excess counts."""
        added = {
            part: self.parts_ms.get(part, 0.0)
            for part in ("embedding", "dense", "registry", "texts")
        }
        keyword = max(0.0, self.parts_ms.get("keyword", 0.0) - added["embedding"] - added["dense"])
        return {**added, "keyword": keyword, "rest": self.whole_ms - sum(added.values()) - keyword}


async def measure() -> Report:
    pages, load = load_pages(), os.getloadavg()[0]
    queries = iter(
        dict.fromkeys(
            title for page in pages if (title := page["metadata"].get("title", "").strip())
        )
    )
    async with running_pipeline({}) as pipeline:
        stored, seconds = await _fill(pipeline, pages)
        chunks = await pipeline.connection.fetchval(_STORED)
        await _paced(pipeline, queries, _WARM_UP)
        alone = await _paced(pipeline, queries, _PER_SECOND * _SECONDS)
        await pipeline.send(with_changed_paragraphs(stored, 1.0))
        busy = await _paced(pipeline, queries, _PER_SECOND * _SECONDS)
        is_busy = await pipeline.is_busy()
    shares = _shares(busy)
    rows = [_row("all of it", alone, busy, "whole", 1.0)]
    rows += [_row(name, alone, busy, part, shares[part]) for part, name in _NAMES.items()]
    figures = {
        "chunks": chunks,
        "p50_ms": rounded(rows[0]["indexing p50 ms"]),
        "p95_ms": rounded(rows[0]["indexing p95 ms"]),
        "degraded": sum(search.is_degraded for search in busy),
        "alone_p50_ms": rounded(rows[0]["alone p50 ms"]),
        "alone_p95_ms": rounded(rows[0]["alone p95 ms"]),
        "share": {part: rounded(share) for part, share in shares.items()},
    }
    crawl = "lasted to the end" if is_busy else "ended too early: the figures are too good"
    note = (
        f"{__doc__} {len(stored)} pages were indexed in {seconds:.0f} s before. The crawl {crawl}. "
        f"Load: {load:.1f}."
    )
    return Report(figures=figures, rows=rows, note=note, plot=lambda axes: _plot(axes, alone, busy))


_NAMES = {
    "embedding": "embedding the query",
    "dense": "dense hits",
    "keyword": "keyword hits, beside these two",
    "registry": "registry",
    "texts": "texts of the page",
    "rest": "rest: two hops of HTTP, ranking, highlights",
}


async def _fill(pipeline: Pipeline, pages: Sequence[Page]) -> tuple[list[Page], float]:
    """Index pages and their mirrors until there are enough chunks; returns pages and seconds."""
    started = time.monotonic()
    stored: list[Page] = []
    while await pipeline.connection.fetchval(_STORED) < _CHUNKS:
        some = pages[len(stored) : len(stored) + _PAGES_AT_ONCE]
        for mirror in range(
            _MIRRORS
        ):  # in sequence: the later ones find their vectors in the cache
            await pipeline.index([_mirrored(page, mirror) for page in some])
        stored += [_mirrored(page, 0) for page in some]
    return stored, time.monotonic() - started


def _mirrored(page: Page, mirror: int) -> Page:
    url = page["url"].replace("://", f"://mirror{mirror}.", 1)
    return {**page, "url": url, "metadata": {**page["metadata"], "url": url, "sourceURL": url}}


async def _paced(pipeline: Pipeline, queries: Iterator[str], count: int) -> list[Search]:
    started = time.monotonic()

    async def search(session: aiohttp.ClientSession, number: int, query: str) -> Search:
        due = started + number / _PER_SECOND
        await asyncio.sleep(due - time.monotonic())
        async with session.post("/api/search", json={"query": query}) as answer:
            found = await answer.json()
            parts = {
                part: float(ms) for part, ms in _TIMED.findall(answer.headers["Server-Timing"])
            }
        return Search((time.monotonic() - due) * 1000, parts, found["degraded"])

    async with pipeline.session() as session:
        asked = enumerate(itertools.islice(queries, count))
        return await asyncio.gather(*(search(session, *numbered) for numbered in asked))


def _shares(searches: Sequence[Search]) -> dict[str, float]:
    """The share of each part in the time of all searches."""
    whole = sum(search.whole_ms for search in searches)
    return {part: sum(search.lasting_ms[part] for search in searches) / whole for part in _NAMES}


def _row(
    name: str, alone: Sequence[Search], busy: Sequence[Search], part: str, share: float
) -> report.Row:
    row: report.Row = {"part": name}
    for load, searches in (("alone", alone), ("indexing", busy)):
        quantiles = statistics.quantiles([_ms(search, part) for search in searches], n=20)
        row |= {f"{load} p50 ms": quantiles[9], f"{load} p95 ms": quantiles[18]}
    return row | {"share while indexing": f"{share:.0%}"}


def _ms(search: Search, part: str) -> float:
    measured = {**search.parts_ms, "whole": search.whole_ms, "rest": search.lasting_ms["rest"]}
    return measured.get(part, 0.0)


def _plot(axes: Axes, alone: Sequence[Search], busy: Sequence[Search]) -> None:
    for label, searches in (("alone", alone), ("while indexing", busy)):
        axes.ecdf([search.whole_ms for search in searches], label=label)
    axes.set_xlabel("milliseconds from due to answer")
    axes.set_ylabel("share of searches")
    axes.legend()


if __name__ == "__main__":
    report.run("search", measure, page=report.SEARCH_PAGE)
