"""An RQ batch worker: jobs of several documents, and workers that gather over them."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import contest
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams
from redis import Redis
from rq import Queue

_QUEUE = "indexing"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redis", required=True)
    parser.add_argument("--batch", type=int, default=8, help="documents in a job; 0 for all in one")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--retries", action="store_true")


def main() -> None:
    options = contest.arguments(_options)
    pages = contest.load(options.pages)
    vectors = VectorParams(size=contest.DIMENSION, distance=Distance.COSINE)
    QdrantClient(url=options.qdrant, check_compatibility=False).create_collection(
        contest.COLLECTION, vectors
    )
    queue = Queue(_QUEUE, connection=Redis.from_url(options.redis), default_timeout=600)
    size = options.batch or len(pages)

    def work() -> None:
        for start in range(0, len(pages), size):
            queue.enqueue(
                "rq_jobs.index_batch",
                pages[start : start + size],
                tries=8 if options.retries else 1,
            )
        workers = [_start_worker(options) for _ in range(options.workers)]
        for worker in workers:
            if worker.wait() != 0:
                raise SystemExit("a worker failed")

    contest.timed(work)


def _start_worker(options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """A worker process that ends when the queue is empty."""
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "rq.cli",
                "worker",
                _QUEUE,
                "--url",
                options.redis,
                "--burst",
                "--quiet",
            ),
            *(
                "--worker-class",
                "rq.worker.SimpleWorker",
            ),  # no fork for each job, so that clients stay open
        ],
        env={**os.environ, "PEER_TEI": options.tei, "PEER_QDRANT": options.qdrant},
        cwd=Path(__file__).parent,
    )


if __name__ == "__main__":
    main()
