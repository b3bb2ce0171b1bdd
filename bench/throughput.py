"""Pages that become searchable a second, compared with peers: `make bench NAME=throughput`.

200 real pages in mode `tei`, every contestant three times in turn. Then 2,000 pages in mode
`bound`, millstream alone, compared with the best that this TEI allows.
"""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes

from bench import report
from bench.contestants import SCRIPTS, Showing, median_of, show_millstream, show_peer
from bench.pages import chunked, load_pages, splitting_cpu_s
from bench.report import Report, rounded
from bench.rig import Round
from bench.stand_ins.tei import MODES

_ROUNDS = 3
_PEER_PAGES = 200
_PAGES = 2000
_VERSUS = {"vs_rq": "rq_4_workers", "vs_llamaindex": "llamaindex", "vs_haystack": "haystack"}


async def measure() -> Report:
    splitting_s = splitting_cpu_s(load_pages(_PEER_PAGES))
    showings = await _contest(splitting_s)
    alone = await _alone()
    ours = showings["millstream"]
    best_s = alone.inputs / MODES["bound"].inputs_per_s
    versus = {
        name: rounded(
            median_of(ours, "stored_per_min") / median_of(showings[peer], "stored_per_min")
        )
        for name, peer in _VERSUS.items()
    }
    cpu = median_of(ours, "cpu_s_per_1000_chunks")
    figures = {
        "stored_docs_per_min": rounded(median_of(ours, "stored_per_min")),
        **versus,
        "optimum_share": rounded(best_s / alone.tei_s),
        "cpu_s_per_1000_chunks": _cpu_by_service(ours),
        "cpu_vs_llamaindex": rounded(
            cpu / median_of(showings["llamaindex"], "cpu_s_per_1000_chunks")
        ),
        "rss_rest_mb": {service: round(mb) for service, mb in _own(alone).rest_mb.items()},
        "rss_peak_mb": {
            service: round(used.peak_mb) for service, used in _own(alone).usage.items()
        },
    }
    rows = [_row(name, "tei", rounds) for name, rounds in showings.items()] + [
        _row("millstream", "bound", [alone])
    ]
    splitting = f"{1000 * splitting_s / ours[0].chunks:.2f} s per 1,000 chunks"
    note = f"{__doc__} Of the CPU of all others {splitting} are for splitting."
    return Report(figures=figures, rows=rows, note=note, plot=lambda axes: _plot(axes, showings))


async def _contest(splitting_s: float) -> dict[str, list[Showing]]:
    pages = load_pages(_PEER_PAGES)
    texts = chunked(pages)
    showings = defaultdict(list)
    for _ in range(_ROUNDS):
        showings["millstream"].append(await show_millstream(pages, texts, "tei"))
        for name in SCRIPTS:
            showings[name].append(await show_peer(name, texts, "tei", splitting_s))
    return dict(showings)


async def _alone() -> Showing:
    pages = load_pages(_PAGES)
    return await show_millstream(pages, chunked(pages), "bound")


def _own(ours: Showing) -> Round:
    """Figures of millstream that the other contestants do not have."""
    assert ours.round is not None
    return ours.round


def _cpu_by_service(rounds: Sequence[Showing]) -> dict[str, float]:
    median = sorted(rounds, key=lambda showing: showing.cpu_s)[len(rounds) // 2]
    return {
        service: rounded(1000 * used.cpu_s / median.chunks)
        for service, used in _own(median).usage.items()
    }


def _row(name: str, mode: str, rounds: Sequence[Showing]) -> report.Row:
    return {
        "contestant": name,
        "mode": mode,
        "pages": rounds[0].pages,
        "stored": median_of(rounds, "stored"),
        "stored/min": median_of(rounds, "stored_per_min"),
        "seconds": median_of(rounds, "seconds"),
        "CPU s/1,000 chunks": median_of(rounds, "cpu_s_per_1000_chunks"),
        "TEI inputs": median_of(rounds, "inputs"),
        "429s": median_of(rounds, "overloaded"),
    }


def _plot(axes: Axes, showings: dict[str, list[Showing]]) -> None:
    names = sorted(showings, key=lambda name: median_of(showings[name], "stored_per_min"))
    axes.barh(names, [median_of(showings[name], "stored_per_min") for name in names])
    axes.set_xlabel(f"pages stored a minute ({_PEER_PAGES} pages, median of {_ROUNDS})")


if __name__ == "__main__":
    report.run("throughput", measure)
