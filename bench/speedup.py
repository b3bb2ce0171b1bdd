"""The gain from documents in parallel over one at a time: `make bench NAME=speedup`.

Documents of 20 to 30 chunks, a TEI that takes 500 ms for a request and a Qdrant that takes 100 ms
for an upsert. Median of 3.
"""

import statistics
import time
import uuid
from collections.abc import Sequence

from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page, chunked, load_pages
from bench.report import Report, rounded
from bench.rig import Pipeline, running_pipeline, stand_in

_COUNTS = (1, 2, 4, 8, 16, 32)
_ROUNDS = 3
_PAGES = 400  # enough for 32 of the right length


async def measure() -> Report:
    pages = load_pages(_PAGES)
    texts = chunked(pages)
    documents = [
        page for page, text in zip(pages, texts, strict=True) if 20 <= len(text.chunks) <= 30
    ]
    async with stand_in("tei", "--mode", "fixed") as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            await pipeline.keep_no_embeddings()
            await _at_once(pipeline, documents[:1])  # the first one creates the collection
            rounds = [
                [await _compare(pipeline, documents[:count]) for count in _COUNTS]
                for _ in range(_ROUNDS)
            ]
    rows = [
        _row(count, column)
        for count, column in zip(_COUNTS, zip(*rounds, strict=True), strict=True)
    ]
    figures = {
        "speedup": {
            str(row["documents"]): row["speedup"] for row in rows if row["documents"] in {4, 16, 32}
        }
    }
    return Report(
        figures=figures, rows=rows, note=__doc__ or "", plot=lambda axes: _plot(axes, rows)
    )


async def _compare(pipeline: Pipeline, documents: Sequence[Page]) -> tuple[float, float]:
    """Seconds in sequence, and in parallel."""
    started = time.monotonic()
    for document in documents:
        await _at_once(pipeline, [document])
    return time.monotonic() - started, await _at_once(pipeline, documents)


async def _at_once(pipeline: Pipeline, documents: Sequence[Page]) -> float:
    """Seconds until all are searchable; each has a new URL, so that none counts as unchanged."""
    return await pipeline.index_each(
        [{**page, "url": f"{page['url']}?{uuid.uuid4()}"} for page in documents]
    )


def _row(count: int, rounds: Sequence[tuple[float, float]]) -> report.Row:
    apart, together = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    return {
        "documents": count,
        "one by one s": apart,
        "at once s": together,
        "speedup": rounded(apart / together),
    }


def _plot(axes: Axes, rows: Sequence[report.Row]) -> None:
    counts = [row["documents"] for row in rows]
    axes.plot(counts, [row["speedup"] for row in rows], marker="o", label="measured")
    axes.plot(counts, counts, linestyle=":", label="as many times as documents")
    axes.set_xlabel("documents")
    axes.set_ylabel("times faster at once than one by one")
    axes.legend()


if __name__ == "__main__":
    report.run("speedup", measure)
