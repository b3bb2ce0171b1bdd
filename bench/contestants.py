"""Runs one contestant over some pages between fresh stand-ins: ours, or a peer in its own environment."""

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

# Each as its own documentation or its users run it; `fixed` arguments after those that all have.
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "rq": ("rq_worker.py",),
    "rq_all_in_one_job": ("rq_worker.py", "--batch", "0"),
    "rq_4_workers": ("rq_worker.py", "--workers", "4", "--retries"),
    "llamaindex": ("llamaindex.py",),
    "haystack": ("haystack_async.py",),
}


class Showing(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant's round. Stored pages and TEI's times are the stand-ins' own counts."""

    name: str
    pages: int
    stored: int  # pages with all of their chunks
    chunks: int
    inputs: int  # that TEI embedded: fewer than chunks where one embeds equal texts once
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


async def show_millstream(pages: Sequence[Page], texts: Sequence[ChunkedPage], mode: str) -> Showing:
    """Our pipeline, one process of each service, from the first webhook to the last searchable page."""
    async with stand_in("tei", "--mode", mode) as tei, stand_in("qdrant") as qdrant:
        settings = {"WEBHOOK_TEI_URL": tei.url, "WEBHOOK_QDRANT_URL": qdrant.url, **BARE_CHUNKS}
        async with running_pipeline(settings) as pipeline:
            await tei.reset()
            round_ = await pipeline.index(pages)
            showing = await _showing("millstream", texts, (tei, qdrant), (round_.seconds, round_.cpu_s))
            return msgspec.structs.replace(showing, round=round_)


async def show_peer(name: str, texts: Sequence[ChunkedPage], mode: str, splitting_cpu_s: float) -> Showing:
    """A peer, from its start with all chunks in memory until it ends; the CPU that they took is added."""
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
        return await _showing(name, texts, (tei, qdrant), (answer["seconds"], answer["cpu_s"] + splitting_cpu_s))


async def _showing(
    name: str,
    texts: Sequence[ChunkedPage],
    stand_ins: tuple[StandIn, StandIn],
    took: tuple[float, float],
) -> Showing:
    tei, qdrant = [await server.counts() for server in stand_ins]
    return Showing(
        name=name, pages=len(texts), stored=stored_pages(texts, qdrant["chunks_by_url"]),
        chunks=sum(len(page.chunks) for page in texts), inputs=tei["inputs"], seconds=took[0], cpu_s=took[1],
        overloaded=tei["overloaded"], tei_s=tei["last_answer_at"] - tei["first_input_at"],
    )  # fmt: skip


def stored_pages(texts: Sequence[ChunkedPage], chunks_by_url: Mapping[str, int]) -> int:
    """How many pages have all of their chunks."""
    return sum(chunks_by_url.get(page.url, 0) == len(page.chunks) for page in texts)


def median_of(showings: Sequence[Showing], figure: str) -> float:
    """The median of an attribute over a contestant's rounds."""
    return statistics.median(float(getattr(showing, figure)) for showing in showings)


async def _run(script: Path, *arguments: str) -> dict[str, Any]:
    """Run a peer's script; an error of its own is a result: it stored what it stored."""
    process = await asyncio.create_subprocess_exec(
        str(_PYTHON), str(script), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer
