"""Explains why a job makes no progress: what the stages wait for, according to /health."""

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

AFTER_S = 10.0  # without progress

_INTERVAL_S = 2.0  # ingest looks at the pipeline as often


class Health(Protocol):
    """Where the health report comes from."""

    def get(self, path: str, **params: Any) -> Any: ...


class StallNotice:
    """Prints what a followed job waits for: after 10 s without progress, and again on change."""

    def __init__(
        self,
        api: Health,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._tell = tell
        self._clock = clock
        self._progress: object = None
        self._next_look = clock() + AFTER_S
        self._told = ""

    def watch(self, progress: object) -> None:
        """Note how far the job is; another value than the last one is progress. Raises ApiError."""
        now = self._clock()
        if progress != self._progress:
            self._progress, self._next_look = progress, now + AFTER_S
            return
        if now < self._next_look:
            return
        self._next_look = now + _INTERVAL_S
        reason = "; ".join(explain(self._api.get("/health")))
        if reason != self._told:
            self._tell(f"No progress. {reason}")
            self._told = reason


def explain(health: Mapping[str, Any]) -> list[str]:
    """What keeps documents from being indexed, one phrase for each cause."""
    stages = health.get("stages") or {}
    of_stages = [cause for name, stage in stages.items() for cause in _causes(name, stage)]
    reported = {wait["dependency"] for stage in stages.values() for wait in stage["waits"]}
    of_ingest = [
        f"ingest: {service} {state}"
        for service, state in health["services"].items()
        if state != "healthy" and service not in reported
    ]
    return of_stages + of_ingest or [_unexplained(stages)]


def _causes(name: str, stage: Mapping[str, Any]) -> list[str]:
    if not stage["workers"]:
        return [f"{name}: no worker is running (start one: `millstream serve {name}`)"]
    return [f"{name}: {describe(wait, stage['workers'])}" for wait in stage["waits"]]


def describe(wait: Mapping[str, Any], workers: int) -> str:
    """A wait of a stage with so many workers: `qdrant unreachable since 19:24 (refused)`."""
    dependency, since = wait["dependency"], local_time(wait["since"])
    share = f"{wait['workers']} of {workers} workers; " if wait["workers"] < workers else ""
    what = (
        f"waiting for {dependency}"
        if wait["state"] == "not_answering"
        else f"{dependency} {wait['state']}"
    )
    return f"{what} since {since} ({share}{wait['reason']})"


def _unexplained(stages: Mapping[str, Any]) -> str:
    """Where the work is, when nothing reports a fault."""
    busy = [name for name, stage in stages.items() if stage["entries"]]
    if busy:
        return f"No fault is reported; batches are in the streams of: {', '.join(busy)}"
    return "No fault is reported, and the streams are empty; `millstream doctor` looks further"


def local_time(text: str, now: dt.datetime | None = None) -> str:
    """An ISO timestamp as the time of day here, with the date if that is not today's."""
    time_there = dt.datetime.fromisoformat(text).astimezone()
    today = (now or dt.datetime.now(dt.UTC)).astimezone().date()
    return f"{time_there:%H:%M}" if time_there.date() == today else f"{time_there:%Y-%m-%d %H:%M}"
