"""The time of a document in the high lane, beside many low ones: `make bench NAME=lanes`.

Documents of a few chunks by POST /api/index, one at a time, in mode `tei`. The many low ones are a
crawl in the low lane.
"""

import statistics
import uuid

from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page, chunked, load_pages
from bench.report import Report, rounded
from bench.rig import Pipeline, running_pipeline, stand_in

_FLOOD = 2000  # pages
_DOCUMENTS = 60


async def measure() -> Report:
    pages = load_pages()
    small = [
        page for page, text in zip(pages, chunked(pages), strict=True) if 1 <= len(text.chunks) <= 4
    ]
    async with stand_in("tei", "--mode", "tei") as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            await pipeline.keep_no_embeddings()
            await _times(pipeline, small[:3])
            alone = await _times(pipeline, small[:_DOCUMENTS])
            await pipeline.send(pages[:_FLOOD], lane="low")
            flood = await _times(pipeline, small[:_DOCUMENTS])
            is_flooded = await pipeline.is_busy()
    rows = [_row("alone", alone), _row("under a flood", flood)]
    figures = {"p95_alone_s": rounded(rows[0]["p95 s"]), "p95_flood_s": rounded(rows[1]["p95 s"])}
    end = "lasted to the end" if is_flooded else "ended too early: the figure is too good"
    note = f"{__doc__} The crawl {end}."
    return Report(
        figures=figures, rows=rows, note=note, plot=lambda axes: _plot(axes, alone, flood)
    )


async def _times(pipeline: Pipeline, documents: list[Page]) -> list[float]:
    fresh = [{**document, "url": f"{document['url']}?{uuid.uuid4()}"} for document in documents]
    return [await pipeline.index_each([document]) for document in fresh]


def _row(name: str, times: list[float]) -> report.Row:
    quantiles = statistics.quantiles(times, n=20)
    return {
        "high lane": name,
        "documents": len(times),
        "p50 s": statistics.median(times),
        "p95 s": quantiles[-1],
    }


def _plot(axes: Axes, alone: list[float], flood: list[float]) -> None:
    axes.ecdf(alone, label="alone")
    axes.ecdf(flood, label="under a flood")
    axes.set_xlabel("seconds from request to searchable")
    axes.set_ylabel("share of documents")
    axes.legend()


if __name__ == "__main__":
    report.run("lanes", measure)
