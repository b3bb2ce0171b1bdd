"""What integration and browser tests share: a whole pipeline with two replicas of every stage."""

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.support.pipeline import Pipeline, replicated_pipeline
from tests.support.run_guard import guarded_run


def pytest_configure(config: pytest.Config) -> None:
    cleanup = contextlib.ExitStack()
    cleanup.enter_context(guarded_run())
    config.add_cleanup(cleanup.close)
    # SIGTERM ends a run as Ctrl+C does: fixtures are closed, temporary directories removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    with replicated_pipeline() as running:
        yield running
