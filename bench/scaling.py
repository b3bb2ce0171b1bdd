"""The gain from more embedders: `make bench NAME=scaling`.

1, 2, 4 and 8 embedders, each with a TEI of its own that accepts one request of up to 32 inputs at a
time, 500 ms each. The number of pages grows with that of embedders, 200 for each: the start and the
end, when not all are busy, then have the same share. The rates are compared.
"""

import contextlib

from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page, load_pages
from bench.report import Report, rounded
from bench.rig import running_pipeline, stand_in
from bench.stand_ins.tei import MODES

_COUNTS = (1, 2, 4, 8)
_PAGES = 200  # for each embedder


async def measure() -> Report:
    rows = [await _with_embedders(count, load_pages(_PAGES * count)) for count in _COUNTS]
    speedups = [row["TEI inputs/s"] / rows[0]["TEI inputs/s"] for row in rows]
    figures = {
        "speedup": {str(n): rounded(s) for n, s in zip(_COUNTS[1:], speedups[1:], strict=True)}
    }
    return Report(
        figures=figures, rows=rows, note=__doc__ or "", plot=lambda axes: _plot(axes, speedups)
    )


async def _with_embedders(count: int, pages: list[Page]) -> report.Row:
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(stand_in("tei", "--mode", "single"))
            for _ in range(count)
        ]
        qdrant = await stack.enter_async_context(stand_in("qdrant"))
        settings = {
            "WEBHOOK_QDRANT_URL": qdrant.url,
            "WEBHOOK_TEI_URL": servers[0].url,
            **BARE_CHUNKS,
        }
        pipeline = await stack.enter_async_context(running_pipeline(settings, {"embedder": 0}))
        for server in servers:
            await stack.enter_async_context(
                pipeline.another("embedder", {"WEBHOOK_TEI_URL": server.url})
            )
        round_ = await pipeline.index(pages)
        asked = [await server.counts() for server in servers]
    rate = sum(counts["inputs"] for counts in asked) / round_.seconds
    return {
        "embedders": count,
        "pages": len(pages),
        "seconds": round_.seconds,
        "TEI inputs/s": rate,
        "share of what the TEIs can do": rate / (count * MODES["single"].inputs_per_s),
        "fewest inputs of a TEI": min(counts["inputs"] for counts in asked),
    }


def _plot(axes: Axes, speedups: list[float]) -> None:
    axes.plot(_COUNTS, speedups, marker="o", label="measured")
    axes.plot(_COUNTS, _COUNTS, linestyle=":", label="as many times as embedders")
    axes.set_xlabel("embedders, each with a TEI")
    axes.set_ylabel("times faster than one")
    axes.legend()


if __name__ == "__main__":
    report.run("scaling", measure)
