"""What all tests share: the end of a run's processes, which tests are left out, and a pipeline."""

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import settings

from tests.support.outside import PARTS, Outside, outside
from tests.support.pipeline import Pipeline, replicated_pipeline
from tests.support.run_guard import guarded_run

_NO_SERVER = {"stand-in", "memory"}  # parameters of tests that then use no server at all
_LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("millstream", deadline=None)  # no wall clock decides a test
    settings.load_profile("millstream")
    cleanup = contextlib.ExitStack()
    cleanup.enter_context(guarded_run())
    config.add_cleanup(cleanup.close)
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_WorkersHook())
    # SIGTERM ends a run as Ctrl+C does: fixtures are closed, temporary directories removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that cannot run on the servers that the run was given."""
    given = {part: outside(part) for part in PARTS}
    reasons = [_obstacle(item, given) for item in items]
    config.hook.pytest_deselected(
        items=[item for item, reason in zip(items, reasons, strict=True) if reason]
    )
    items[:] = [item for item, reason in zip(items, reasons, strict=True) if not reason]
    config.stash[_LEFT_OUT] = dict(Counter(filter(None, reasons)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # of a worker of xdist
    if output is not None:
        output["left_out"] = session.config.stash.get(_LEFT_OUT, {})


class _WorkersHook:
    """For xdist: its workers collect the tests, and its controller prints the summary."""

    def pytest_testnodedown(self, node: Any) -> None:
        node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for reason, count in config.stash.get(_LEFT_OUT, {}).items():
        terminalreporter.line(f"{count} left out: {reason}")


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    with replicated_pipeline() as running:
        yield running


def _obstacle(item: pytest.Item, given: Mapping[str, Outside]) -> str | None:
    """Why the test cannot run on the servers that were given, in words."""
    for mark in item.iter_markers("embedded_server"):
        [part] = mark.args
        if given[part].is_given:
            return f"about the embedded {part}, and the run was given another one"
    callspec = getattr(item, "callspec", None)
    if callspec is not None and not _NO_SERVER.isdisjoint(map(str, callspec.params.values())):
        return None
    for mark in item.iter_markers("own_server"):
        [part] = mark.args
        if given[part].is_shared:
            variable = f"MILLSTREAM_TEST_{part.upper()}_COMMAND"
            return f"needs a {part} of its own, which {variable} would start"
    return None
