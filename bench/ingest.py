"""Webhooks that ingest accepts a second, and its answer times: `make bench NAME=ingest`.

Throughput: a closed loop of 16 connections, ingest alone on one core, no stage running. Latency:
100 webhooks a second, counted from when each was due, while the stages index a crawl (with
stand-ins for TEI and Qdrant). Every webhook is signed, has a page of its own, and is committed
before its answer.
"""

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
from matplotlib.axes import Axes

from bench import report
from bench.pages import BARE_CHUNKS, Page, load_pages
from bench.report import Report, rounded
from bench.rig import Pipeline, running_pipeline, stand_in
from cli.sample.webhooks import events

_CONNECTIONS = 16
_WEBHOOKS = 5000
_ROUNDS = 3
_CRAWL = 2000  # pages
_PER_SECOND = 100
_SECONDS = 20
_NO_STAGES = {"chunker": 0, "embedder": 0, "indexer": 0}

Delivery = tuple[bytes, dict[str, str]]


async def measure() -> Report:
    pages, load = load_pages(), os.getloadavg()[0]
    async with running_pipeline({}, _NO_STAGES) as pipeline:
        for pid in pipeline.pids()["ingest"]:
            os.sched_setaffinity(pid, {0})
        await _closed_loop(pipeline, _deliveries(pipeline, pages, 500))
        before = pipeline.usage()["ingest"].cpu_s
        loops = [
            await _closed_loop(pipeline, _deliveries(pipeline, pages, _WEBHOOKS))
            for _ in range(_ROUNDS)
        ]
        cpu_ms = (pipeline.usage()["ingest"].cpu_s - before) / (_ROUNDS * _WEBHOOKS) * 1000
    async with stand_in("tei", "--mode", "tei") as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            await pipeline.send(pages[:_CRAWL], lane="normal")
            latencies = await _paced(pipeline, _deliveries(pipeline, pages, _PER_SECOND * _SECONDS))
            is_busy = await pipeline.is_busy()
    per_s = statistics.median(_WEBHOOKS / seconds for seconds, _ in loops)
    idle = _row("16 connections, idle", per_s, [latency for _, times in loops for latency in times])
    busy = _row(f"{_PER_SECOND}/s while indexing", float(_PER_SECOND), latencies)
    figures = {
        "webhooks_per_s": rounded(per_s),
        "p50_ms": rounded(busy["p50 ms"]),
        "p99_ms": rounded(busy["p99 ms"]),
    }
    crawl = "lasted to the end" if is_busy else "ended too early: latency is too good"
    note = (
        f"{__doc__} Ingest took {cpu_ms:.2f} ms of CPU for a webhook. The crawl {crawl}. "
        f"Load before: {load:.1f}."
    )
    return Report(
        figures=figures, rows=[idle, busy], note=note, plot=lambda axes: _plot(axes, latencies)
    )


def _deliveries(pipeline: Pipeline, pages: list[Page], count: int) -> list[Delivery]:
    """Signed webhooks, each with a page that was not sent before."""
    run = uuid.uuid4().hex
    some = [{**pages[n % len(pages)], "url": f"https://{run}.example/{n}"} for n in range(count)]
    fresh: list[Any] = [
        {**page, "metadata": {**page["metadata"], "url": page["url"]}} for page in some
    ]
    return [
        pipeline.signed(event)
        for event in events(fresh, lambda: str(uuid.uuid4()))
        if event["data"]
    ]


async def _closed_loop(pipeline: Pipeline, deliveries: list[Delivery]) -> tuple[float, list[float]]:
    """Seconds for all webhooks, and milliseconds for each."""
    times: list[float] = []

    async def sender(session: aiohttp.ClientSession, waiting: Iterator[Delivery]) -> None:
        for delivery in waiting:
            started = time.monotonic()
            await _post(session, delivery)
            times.append((time.monotonic() - started) * 1000)

    async with _session(pipeline) as session:
        waiting = iter(deliveries)
        started = time.monotonic()
        await asyncio.gather(*(sender(session, waiting) for _ in range(_CONNECTIONS)))
        return time.monotonic() - started, times


async def _paced(pipeline: Pipeline, deliveries: list[Delivery]) -> list[float]:
    """Milliseconds for each webhook, from the moment when it was due."""
    started = time.monotonic()

    async def send(session: aiohttp.ClientSession, number: int, delivery: Delivery) -> float:
        due = started + number / _PER_SECOND
        await asyncio.sleep(due - time.monotonic())
        await _post(session, delivery)
        return (time.monotonic() - due) * 1000

    async with _session(pipeline) as session:
        return await asyncio.gather(
            *(send(session, *numbered) for numbered in enumerate(deliveries))
        )


async def _post(session: aiohttp.ClientSession, delivery: Delivery) -> None:
    body, headers = delivery
    async with session.post("/api/webhook/firecrawl", data=body, headers=headers) as answer:
        await answer.read()
        if answer.status != 202:
            raise AssertionError(f"{answer.status}: {await answer.text()}")


def _session(pipeline: Pipeline) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(pipeline.url, connector=aiohttp.TCPConnector(limit=0))


def _row(load: str, per_s: float, times_ms: list[float]) -> report.Row:
    quantiles = statistics.quantiles(times_ms, n=100)
    return {"load": load, "webhooks/s": per_s, "p50 ms": quantiles[49], "p99 ms": quantiles[98]}


def _plot(axes: Axes, latencies: list[float]) -> None:
    axes.ecdf(latencies)
    axes.set_xlabel("milliseconds from due to 202, 100 webhooks a second while indexing")
    axes.set_ylabel("share of webhooks")


if __name__ == "__main__":
    report.run("ingest", measure)
