"""The quality of search results: `make bench NAME=relevance DATA=folder`.

Collections in BEIR's layout go through the webhook into named collections and are searched over the
API, with one hit for each document. In the same run two baselines rank the same documents: bm25s,
and reciprocal rank fusion of bm25s with exact dense search over the same vectors. The last line is
{"collections": {name: {system: nDCG@10}}}.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import stamina

from bench.baselines import Bm25sIndex, DenseIndex, Matrix, Ranking, fuse
from bench.beir import Document, Query, RetrievalCollection, load_collections
from bench.relevance_report import CollectionReport, report_of, write_results
from cli.client import ApiClient
from cli.commands.serve import apply_migrations
from cli.sample.webhooks import SIGNATURE_HEADER, sign
from indexer.qdrant.client import make_client
from local.services import Services
from local.stack import API_SECRET, WEBHOOK_SECRET, Stack
from shared.service.search_contract import MAX_QUERY_CHARACTERS
from shared.service.settings import QdrantSettings, TeiSettings, load
from shared.tei.allowed import own_servers
from shared.tei.servers import tei_clients

OURS = ("keyword", "semantic", "hybrid")
DEPTH = 100  # the most that the API returns

_DOCUMENTS_OF_EVENT = 50
_SEARCHES_AT_ONCE = 4
_URL = "https://documents.example/"


class DegradedError(Exception):
    """A degraded answer: it would measure one half of the search."""


class Deployment:
    """A running millstream, found through its environment. The caller closes it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.api = ApiClient(environment["MILLSTREAM_URL"], environment[API_SECRET])

    def close(self) -> None:
        self.api.close()

    def index(self, collection: RetrievalCollection) -> int:
        """Send all documents and block until they are searchable; returns how many failed."""
        starts = range(0, len(collection.documents), _DOCUMENTS_OF_EVENT)
        jobs = [self._send(collection, start) for start in starts]
        failed = 0
        for done, job_id in enumerate(jobs, start=1):
            job = self.api.get(f"/api/jobs/{job_id}", wait="30s", limit=1)
            while job["finished_at"] is None:
                job = self.api.get(f"/api/jobs/{job_id}", wait="30s", limit=1)
            failed += job["failed"]
            _tell(f"{collection.name}: {done} of {len(jobs)} jobs")
        return failed

    def search(self, collection: RetrievalCollection, mode: str) -> list[Ranking]:
        """The documents that the API finds for each query. Blocks until all are answered."""

        def rank(query: Query) -> Ranking:
            request = {
                "query": query.text[:MAX_QUERY_CHARACTERS],
                "mode": mode,
                "limit": DEPTH,
                "collapse": "document",
                "collection": collection.index_name,
            }
            answer = self._whole_answer(request)
            return [document_of(collection, result["url"]).id for result in answer["results"]]

        with ThreadPoolExecutor(_SEARCHES_AT_ONCE) as threads:
            return list(threads.map(rank, collection.queries))

    @stamina.retry(on=DegradedError, attempts=10, timeout=None)
    def _whole_answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.api.post("/api/search", request)
        if answer["degraded"]:
            raise DegradedError
        return answer

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """float32[texts, dimension]."""
        settings = load(_TeiOnly, self.environment).tei
        async with aiohttp.ClientSession() as session:
            tei = tei_clients(session, settings, own_servers(settings, settings.tei_url))[0]
            return np.stack([await tei.embed_query(text) for text in texts])

    async def dense_index(self, collection: RetrievalCollection) -> DenseIndex:
        """The stored vectors of a collection, for the exact search."""
        client = make_client(load(_QdrantOnly, self.environment).qdrant)
        owners: list[str] = []
        vectors: list[Any] = []
        offset: Any = None
        try:
            while True:
                points, offset = await client.scroll(
                    collection.index_name,
                    limit=256,
                    offset=offset,
                    with_payload=["url"],
                    with_vectors=["dense"],
                )
                owners += [
                    document_of(collection, (point.payload or {})["url"]).id for point in points
                ]
                vectors += [
                    point.vector["dense"] for point in points if isinstance(point.vector, dict)
                ]
                if offset is None:
                    break
        finally:
            await client.close()
        return DenseIndex(owners, np.array(vectors, dtype=np.float32))

    def _send(self, collection: RetrievalCollection, start: int) -> str:
        chosen = enumerate(collection.documents[start : start + _DOCUMENTS_OF_EVENT], start)
        event = {
            "success": True,
            "type": "crawl.page",
            "id": f"relevance-{collection.name}",
            "webhookId": str(uuid.uuid4()),
            "data": [_page(number, document) for number, document in chosen],
        }
        body = msgspec.json.encode(event)
        path = f"/api/webhook/firecrawl?collection={collection.index_name}"
        job_id: str = self.api.post_raw(
            path, body, {SIGNATURE_HEADER: sign(body, self.environment[WEBHOOK_SECRET])}
        )["job_id"]
        return job_id


class _TeiOnly(msgspec.Struct, frozen=True):
    tei: TeiSettings


class _QdrantOnly(msgspec.Struct, frozen=True):
    qdrant: QdrantSettings


async def measure(deployment: Deployment, collection: RetrievalCollection) -> CollectionReport:
    """Index one collection, and rank documents for its queries with every system."""
    failed = await asyncio.to_thread(deployment.index, collection)
    rankings = {mode: await asyncio.to_thread(deployment.search, collection, mode) for mode in OURS}
    bm25s = Bm25sIndex({document.id: document.content for document in collection.documents})
    dense = await deployment.dense_index(collection)
    embedded = await deployment.embed([query.text for query in collection.queries])
    by_words = [bm25s.rank(query.text) for query in collection.queries]
    rankings["bm25s"] = by_words
    rankings["rrf"] = [
        fuse(words, dense.rank(vector)) for words, vector in zip(by_words, embedded, strict=True)
    ]
    return report_of(collection, rankings, failed)


def document_of(collection: RetrievalCollection, url: str) -> Document:
    """The document that was sent under this URL; ids need not be URLs, and may need escapes."""
    return collection.documents[int(url.removeprefix(_URL))]


def _page(number: int, document: Document) -> dict[str, Any]:
    """The document as Firecrawl sends it. One without text has its title as text."""
    metadata = {"url": f"{_URL}{number}", "title": document.title or ""}
    return {
        "markdown": document.text if (document.text or "").strip() else document.title,
        "metadata": metadata,
    }


def _tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


async def run(
    collections: Sequence[RetrievalCollection],
    directory: Path,
    done: Callable[[CollectionReport], None],
) -> list[CollectionReport]:
    """Measure all collections on a new stack in `directory`; `done` gets each result."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
    reports = []
    async with Stack(directory / "data", environ | {"WEBHOOK_WORKER_BATCH_SIZE": "auto"}) as stack:
        await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
        async with Services(stack) as services:
            with contextlib.closing(Deployment(services.environment)) as deployment:
                for collection in collections:
                    reports.append(await measure(deployment, collection))
                    done(reports[-1])
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a collection's folder, or a folder of such"
    )
    collections = load_collections(parser.parse_args().data)
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # Postgres runs as another user when this one is root
        reports = asyncio.run(
            run(collections, directory, lambda report: _tell(str(report.table_row)))
        )
    write_results(reports)
    scores = {report.name: report.ndcg_at_10 for report in reports}
    sys.stdout.write(msgspec.json.encode({"collections": scores}).decode() + "\n")


if __name__ == "__main__":
    main()
