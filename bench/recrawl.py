"""The cost of a second crawl of the same site: `make bench NAME=recrawl`.

2,000 pages in mode `bound`: for the first time, again unchanged, and with one more sentence in 5%
of their paragraphs.
"""

from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, chunked, load_pages, with_changed_paragraphs
from bench.report import Report, rounded
from bench.rig import Pipeline, StandIn, running_pipeline, stand_in

_PAGES = 2000
_CHANGED = 0.05


async def measure() -> Report:
    pages = load_pages(_PAGES)
    edited = with_changed_paragraphs(pages, _CHANGED)
    known = {text for page in chunked(pages) for text in page.chunks}
    changed = sum(text not in known for page in chunked(edited) for text in page.chunks)
    async with stand_in("tei", "--mode", "bound") as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            rows = [
                await _crawl(pipeline, tei, name, crawl)
                for name, crawl in (("first", pages), ("unchanged", pages), ("5% changed", edited))
            ]
    first, unchanged, other = rows
    figures = {
        "inputs_unchanged": unchanged["TEI inputs"],
        "speedup_unchanged": rounded(first["seconds"] / unchanged["seconds"]),
        "inputs_over_changed": rounded(other["TEI inputs"] / changed),
    }
    note = f"{__doc__} {changed} chunks have a text that the first crawl did not have."
    return Report(figures=figures, rows=rows, note=note, plot=lambda axes: _plot(axes, rows))


async def _crawl(
    pipeline: Pipeline, tei: StandIn, name: str, pages: list[dict[str, object]]
) -> report.Row:
    await tei.reset()
    round_ = await pipeline.index(pages)
    counts = await tei.counts()
    return {
        "crawl": name,
        "pages": len(pages),
        "indexed": round_.ends.get("indexed", 0),
        "unchanged": round_.ends.get("unchanged", 0),
        "seconds": round_.seconds,
        "CPU s": round_.cpu_s,
        "TEI inputs": counts["inputs"],
    }


def _plot(axes: Axes, rows: list[report.Row]) -> None:
    axes.bar([row["crawl"] for row in rows], [row["seconds"] for row in rows])
    axes.set_ylabel(f"seconds for {_PAGES} pages")


if __name__ == "__main__":
    report.run("recrawl", measure)
