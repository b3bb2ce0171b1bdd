"""What integration and browser tests share: a whole pipeline with two replicas of every stage."""

from collections.abc import Iterator

import pytest

from tests.support.pipeline import Pipeline, replicated_pipeline


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    with replicated_pipeline() as running:
        yield running
