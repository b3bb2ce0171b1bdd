"""What integration and browser tests share: a whole pipeline with two replicas of every stage."""

from collections.abc import Iterator

import pytest

from tests.support.pipeline import Pipeline, running_pipeline

REPLICAS = "ingest=2,chunker=2,embedder=2,indexer=2"


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    settings = {
        "WEBHOOK_LEASE": "3s",
        "WEBHOOK_LEASE_RENEWAL": "500ms",
        "WEBHOOK_LOG_LEVEL": "info",
        "WEBHOOK_LOG_FORMAT": "json",
    }
    with running_pipeline("--replicas", REPLICAS, **settings) as running:
        yield running
