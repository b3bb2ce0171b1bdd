"""The time of the pipeline compared with TEI alone: `make bench NAME=overhead`.

The chunks of the sample crawl are embedded twice on the same embedded TEI: by the batcher of the
embedder alone, and in the whole pipeline, from the first webhook to the last searchable document.
The rounds alternate. The figure is the ratio of the medians: machines are noisy, and a ratio from
one run is less so.
"""

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp

from chunker.splitting.cleaning import clean
from chunker.splitting.splitter import Splitter
from cli.client import ApiClient
from cli.commands.serve import apply_migrations
from cli.sample import pages
from cli.sample_run import post_crawl, wait_for_crawl
from embedder.batcher import EmbeddingBatcher
from embedder.sending.isolation import SendingRules
from embedder.sending.packing import Capacity, TextInput, capacity_of
from embedder.sending.servers import Server, Servers, Shared
from local.services import Services
from local.stack import API_SECRET, WEBHOOK_SECRET, Stack
from shared.pipeline.messages import Chunk
from shared.service.metrics import Metrics
from shared.tei.client import TeiClient
from shared.tei.tokenizer import load_tokenizer

ROUNDS = 3
RESULTS = Path(__file__).parent / "results" / "overhead.json"


async def measure(directory: Path) -> dict[str, Any]:
    """Run both ways on a new stack in `directory`."""
    sample = pages()
    splitter = Splitter(load_tokenizer(None))
    documents = [
        splitter.split(clean(page["markdown"]), page["metadata"]["title"]) for page in sample
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
    async with Stack(directory / "data", environ) as stack:
        await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
        async with Services(stack) as services:
            return await compare(services.environment, services.url, sample, documents)


async def compare(
    environment: dict[str, str],
    url: str,
    sample: list[dict[str, Any]],
    documents: list[tuple[Chunk, ...]],
) -> dict[str, Any]:
    """Alternate both ways after a warm-up round; seconds are medians."""
    api = ApiClient(url, environment[API_SECRET])
    alone, pipeline = [], []
    for _ in range(ROUNDS + 1):
        alone.append(await embed_alone(environment["WEBHOOK_TEI_URL"], documents))
        pipeline.append(
            await asyncio.to_thread(run_pipeline, api, environment[WEBHOOK_SECRET], sample)
        )
    tei, whole = statistics.median(alone[1:]), statistics.median(pipeline[1:])
    chunks = sum(len(document) for document in documents)
    return {
        "documents": len(documents),
        "chunks": chunks,
        "rounds": ROUNDS,
        "tei_alone_s": round(tei, 2),
        "pipeline_s": round(whole, 2),
        "ratio": round(whole / tei, 3),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


async def embed_alone(url: str, documents: list[tuple[Chunk, ...]]) -> float:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=80)) as session:
        client = TeiClient(session, url)
        dimension = await client.probe()

        async def handshake() -> Capacity:
            return capacity_of(await client.info(), 80)

        shared = Shared(
            rules=SendingRules(dimension=dimension), metrics=Metrics(), observe=lambda _call: None
        )
        server = Server(client.name, client, handshake, shared)
        async with Servers([server], dimension) as servers, EmbeddingBatcher(servers) as batcher:
            started = time.monotonic()
            texts = [
                [TextInput(chunk.embedded_text, chunk.tokens) for chunk in chunks]
                for chunks in documents
            ]
            await asyncio.gather(*(batcher.embed(each) for each in texts))
            return time.monotonic() - started


def run_pipeline(api: ApiClient, secret: str, sample: list[dict[str, Any]]) -> float:
    """Index the pages under new URLs, so that none counts as unchanged."""
    run = uuid.uuid4().hex
    fresh = [
        {**page, "metadata": {**page["metadata"], "url": f"{page['url']}?run={run}"}}
        for page in sample
    ]
    started = time.monotonic()
    wait_for_crawl(api, post_crawl(api, secret, fresh))
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # Postgres runs as another user when this one is root
        report = asyncio.run(measure(directory))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
