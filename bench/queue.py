"""How TEI's queue is shared: `make bench NAME=queue`.

A TEI of 8 inputs/s with one queue and batches of four; 60 documents of 8 chunks, a new question
every half second; one embedder, then four. Then a TEI of 40 inputs/s that slows down to a third,
recovers, and gets two more embedders.
"""

import asyncio
import contextlib
import itertools
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import msgspec
from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page
from bench.report import Report, rounded
from bench.rig import Pipeline, StandIn, running_pipeline, stand_in

DOCUMENTS = 60
CHUNKS = 8
GRACE = 3  # searches that may be degraded while the window is found
_SEARCH_S = 0.5
_PHASES = ("steady", "a third as fast", "recovered", "two more embedders")
_PHASE_S = 20.0
_SAMPLE_S = 0.5
_FAULTS = """
SELECT count(*) FILTER (WHERE state <> 'indexed'), coalesce(sum(attempts), 0)
FROM webhook.job_items
"""
_LIMIT = re.compile(r"^millstream_tei_input_limit\{.*\} (\S+)$", re.MULTILINE)


class Searches(msgspec.Struct):
    """The searches of a round, in order."""

    seconds: list[float] = msgspec.field(default_factory=list)
    degraded: list[bool] = msgspec.field(default_factory=list)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The state at one moment of the run in the picture."""

    at: float
    queue_s: float  # of the inputs since the last sample, mean
    inputs_per_s: float
    limits: list[float]  # inputs that each embedder may have in flight


async def measure() -> Report:
    """One embedder and four at 8 inputs/s, then the run in the picture."""
    rows = [await shared_by(embedders) for embedders in (1, 4)]
    samples = await _changing()
    figures = {
        f"embedders_{row['embedders']}": {k: v for k, v in row.items() if k != "embedders"}
        for row in rows
    }
    return Report(
        figures=figures, rows=rows, note=__doc__ or "", plot=lambda axes: _plot(axes, samples)
    )


async def shared_by(embedders: int, mode: str = "cpu") -> report.Row:
    """Index the documents with so many embedders, and search at the same time."""
    async with _running(mode, embedders) as (tei, pipeline):
        await pipeline.index(list(pages(1)))
        await tei.reset()
        searches = Searches()
        async with _while_searching(pipeline, searches):
            round_ = await pipeline.index(list(pages(DOCUMENTS)))
        counts = await tei.counts()
        unfinished, attempts = await pipeline.connection.fetchrow(_FAULTS) or (0, 0)
    seconds = sorted(searches.seconds)
    return {
        "embedders": embedders,
        "seconds": rounded(round_.seconds),
        "TEI busy": rounded(counts["busy"]),
        "queue p95 s": rounded(counts["queue_p95_s"]),
        "given up %": rounded(
            100 * counts["dropped"] / max(1, counts["inputs"] + counts["dropped"])
        ),
        "searches": len(seconds),
        "degraded": sum(searches.degraded[GRACE:]),
        "search p95 s": rounded(seconds[int(0.95 * (len(seconds) - 1))]),
        "not indexed": unfinished,
        "attempts": attempts,
    }


def pages(count: int) -> Iterator[Page]:
    """Documents of eight chunks, all with different texts."""
    for _ in range(count):
        run = uuid.uuid4().hex[:6]
        paragraphs = ("word " * 50 + f"{run} {number}." for number in range(CHUNKS))
        url = f"https://example.com/{run}"
        yield {
            "url": url,
            "markdown": "\n\n".join(paragraphs),
            "metadata": {"url": url, "title": run},
        }


@contextlib.asynccontextmanager
async def _running(mode: str, embedders: int) -> AsyncIterator[tuple[StandIn, Pipeline]]:
    async with stand_in("tei", "--mode", mode) as tei:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_MAX_CHUNK_TOKENS": "80", **BARE_CHUNKS}
        async with running_pipeline(settings, {"embedder": embedders}) as pipeline:
            await pipeline.keep_no_embeddings()
            yield tei, pipeline


@contextlib.asynccontextmanager
async def _while_searching(pipeline: Pipeline, searches: Searches) -> AsyncIterator[None]:
    """Ask a new question every half second until the block ends."""

    async def search(session: aiohttp.ClientSession) -> None:
        started = time.monotonic()
        async with session.post("/api/search", json={"query": f"what is {uuid.uuid4()}"}) as answer:
            answer.raise_for_status()
            searches.degraded.append((await answer.json())["degraded"])
        searches.seconds.append(time.monotonic() - started)

    async def keep_searching(session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(search(session))
                await asyncio.sleep(_SEARCH_S)

    async with pipeline.session() as session:
        searching = asyncio.create_task(keep_searching(session))
        try:
            yield
        finally:
            searching.cancel()
            await asyncio.wait([searching])


async def _changing() -> list[Sample]:
    """A TEI that changes its speed, and embedders that join."""
    samples: list[Sample] = []
    async with _running("quick-cpu", 1) as (tei, pipeline), contextlib.AsyncExitStack() as joined:
        await pipeline.index(list(pages(1)))
        work = list(pages(600))
        await pipeline.send(work)
        embedders = [row.url for row in pipeline.rows("embedder")]
        sampling = asyncio.create_task(_sample(tei, embedders, samples))
        for phase, slowness in zip(_PHASES, (1, 3, 1, 1), strict=True):
            await tei.slow_down(slowness)
            if phase == _PHASES[-1]:
                joining = (
                    joined.enter_async_context(pipeline.another("embedder", {})) for _ in range(2)
                )
                embedders += await asyncio.gather(*joining)
            await asyncio.sleep(_PHASE_S)
        sampling.cancel()
    return samples


async def _sample(tei: StandIn, embedders: Sequence[str], samples: list[Sample]) -> None:
    started = before_at = time.monotonic()
    before = await _tei_sums(tei.url)
    for number in itertools.count(1):
        await asyncio.sleep(max(0.0, started + number * _SAMPLE_S - time.monotonic()))
        now, sums = time.monotonic(), await _tei_sums(tei.url)
        inputs = sums[1] - before[1]
        limits = [
            float(match)
            for url in embedders
            for match in _LIMIT.findall(await _text(f"{url}/metrics"))
        ]
        samples.append(
            Sample(
                at=now - started,
                queue_s=(sums[0] - before[0]) / inputs if inputs else 0.0,
                inputs_per_s=inputs / (now - before_at),
                limits=limits,
            )
        )
        before, before_at = sums, now


async def _tei_sums(url: str) -> tuple[float, float]:
    """Seconds that inputs have waited, and how many have been computed."""
    values = dict(line.rsplit(" ", 1) for line in (await _text(f"{url}/metrics")).splitlines())
    return float(values["te_request_queue_duration_sum"]), float(values["te_embed_success"])


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


def _plot(axes: Axes, samples: Sequence[Sample]) -> None:
    at = [sample.at for sample in samples]
    axes.plot(at, [sample.inputs_per_s for sample in samples], label="inputs/s", color="tab:gray")
    for number in range(max(len(sample.limits) for sample in samples)):
        seen = [sample for sample in samples if len(sample.limits) > number]
        label = f"in flight, embedder {number + 1}"
        axes.step(
            [sample.at for sample in seen], [sample.limits[number] for sample in seen], label=label
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("inputs")
    axes.set_ylim(0, 60)
    right = axes.twinx()
    right.plot(at, [1000 * sample.queue_s for sample in samples], color="tab:red", linewidth=0.8)
    right.set_ylabel("queue time, ms (red)")
    right.set_ylim(0, 1500)
    for number, phase in enumerate(_PHASES):
        axes.axvline(number * _PHASE_S, linestyle=":", color="black", linewidth=0.8)
        axes.text(number * _PHASE_S + 0.5, 57, phase, fontsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.93), fontsize=7)


if __name__ == "__main__":
    report.run("queue", measure, report.DOCS / "scaling.md")
