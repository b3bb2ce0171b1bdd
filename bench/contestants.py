"""Runs one contestant over some pages with fresh stand-ins: millstream, or a peer."""

import asyncio
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.pages import BARE_CHUNKS, ChunkedPage, Page
from bench.rig import Round, StandIn, directory, running_pipeline, stand_in
from local.stack import Stack

PEERS = Path(__file__).parent / "peers"
_PYTHON = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"  # `make bench` makes it

# Each as its documentation or its users run it. Arguments that only one has come last.
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "rq": ("rq_worker.py",),
    "rq_all_in_one_job": ("rq_worker.py", "--batch", "0"),
    "rq_4_workers": ("rq_worker.py", "--workers", "4", "--retries"),
    "llamaindex": ("llamaindex.py",),
    "haystack": ("haystack_async.py",),
}


class Showing(msgspec.Struct, frozen=True, kw_only=True):
    """One round of a contestant. The stand-ins count stored pages and the times of TEI."""

    name: str
    pages: int
    stored: int  # pages with all of their chunks
    chunks: int
    inputs: int  # that TEI embedded; fewer than chunks if equal texts are embedded once
    seconds: float
    cpu_s: float
    overloaded: int  # requests that TEI answered with 429
    tei_s: float  # from the first input to the last answer
    round: Round | None = None  # ours alone

    @property
    def stored_per_min(self) -> float:
        return 60 * self.stored / self.seconds

    @property
    def cpu_s_per_1000_chunks(self) -> float:
        return 1000 * self.cpu_s / self.chunks


async def show_millstream(
    pages: Sequence[Page], texts: Sequence[ChunkedPage], mode: str
) -> Showing:
    """Millstream, one process of each service, from first webhook to last searchable page."""
    async with stand_in("tei", "--mode", mode) as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            await tei.reset()
            round_ = await pipeline.index(pages)
            showing = await _showing(
                "millstream", texts, (tei, qdrant), (round_.seconds, round_.cpu_s)
            )
            return msgspec.structs.replace(showing, round=round_)


async def show_peer(
    name: str, texts: Sequence[ChunkedPage], mode: str, splitting_cpu_s: float
) -> Showing:
    """A peer, from its start with all chunks in memory to its end. Adds the CPU of chunking."""
    async with stand_in("tei", "--mode", mode) as tei, stand_in("qdrant") as qdrant:
        with directory() as path:
            file = path / "pages.jsonl"
            await asyncio.to_thread(file.write_bytes, b"\n".join(map(msgspec.json.encode, texts)))
            async with Stack(path / "data", os.environ, parts=["redis"]) as stack:
                script, *own = SCRIPTS[name]
                common = ["--pages", str(file), "--tei", tei.url, "--qdrant", qdrant.url]
                if script == "rq_worker.py":
                    own += ["--redis", stack.environment["WEBHOOK_REDIS_URL"]]
                answer = await _run(PEERS / script, *common, *own)
        return await _showing(
            name, texts, (tei, qdrant), (answer["seconds"], answer["cpu_s"] + splitting_cpu_s)
        )


async def _showing(
    name: str,
    texts: Sequence[ChunkedPage],
    stand_ins: tuple[StandIn, StandIn],
    took: tuple[float, float],
) -> Showing:
    tei, qdrant = [await server.counts() for server in stand_ins]
    return Showing(
        name=name,
        pages=len(texts),
        stored=stored_pages(texts, qdrant["chunks_by_url"]),
        chunks=sum(len(page.chunks) for page in texts),
        inputs=tei["inputs"],
        seconds=took[0],
        cpu_s=took[1],
        overloaded=tei["overloaded"],
        tei_s=tei["last_answer_at"] - tei["first_input_at"],
    )


def stored_pages(texts: Sequence[ChunkedPage], chunks_by_url: Mapping[str, int]) -> int:
    """How many pages have all of their chunks."""
    return sum(chunks_by_url.get(page.url, 0) == len(page.chunks) for page in texts)


def median_of(showings: Sequence[Showing], figure: str) -> float:
    """The median of an attribute over a contestant's rounds."""
    return statistics.median(float(getattr(showing, figure)) for showing in showings)


async def _run(script: Path, *arguments: str) -> dict[str, Any]:
    """Run the script of a peer. Its failure is a result as well: it stored what it stored."""
    process = await asyncio.create_subprocess_exec(
        str(_PYTHON), str(script), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer
