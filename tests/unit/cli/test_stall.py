"""What a command prints while the job it follows makes no progress."""

import datetime as dt
from typing import Any

import pytest

from cli.stall import StallNotice, explain, local_time

NOON = "2026-11-27T12:00:00Z"


def wait(**changes: Any) -> dict[str, Any]:
    """A wait of the indexer for Qdrant."""
    found = {
        "dependency": "qdrant",
        "state": "unreachable",
        "since": NOON,
        "reason": "refused",
        "workers": 1,
    }
    return found | changes


def stage(*waits: dict[str, Any], workers: int = 1, entries: int = 0) -> dict[str, Any]:
    return {"workers": workers, "entries": entries, "waits": list(waits)}


def health(services: dict[str, str] | None = None, **stages: Any) -> dict[str, Any]:
    names = ("chunker", "embedder", "indexer")
    return {"services": services or {}, "stages": dict.fromkeys(names, stage()) | stages}


SINCE = local_time(NOON)


@pytest.mark.parametrize(
    ("report", "explained"),
    [
        (health(indexer=stage(wait())), [f"indexer: qdrant unreachable since {SINCE} (refused)"]),
        (
            health(embedder=stage(wait(dependency="tei", state="not_answering"))),
            [f"embedder: waiting for tei since {SINCE} (refused)"],
        ),
        (
            health(indexer=stage(wait(workers=2), workers=3)),
            [f"indexer: qdrant unreachable since {SINCE} (2 of 3 workers; refused)"],
        ),
        (
            health(chunker=stage(workers=0)),
            ["chunker: no worker is running (start one: `millstream serve chunker`)"],
        ),
        (
            health({"postgres": "unhealthy: refused", "redis": "healthy"}),
            ["ingest: postgres unhealthy: refused"],
        ),
        (
            health({"qdrant": "unhealthy: refused"}, indexer=stage(wait())),
            [f"indexer: qdrant unreachable since {SINCE} (refused)"],
        ),
        (
            health(embedder=stage(entries=3)),
            ["No fault is reported; batches are in the streams of: embedder"],
        ),
        (
            {"services": {"redis": "healthy"}},  # of an older ingest
            ["No fault is reported, and the streams are empty; `millstream doctor` looks further"],
        ),
    ],
)
def test_what_keeps_documents_from_being_indexed(
    report: dict[str, Any], explained: list[str]
) -> None:
    assert explain(report) == explained


class World:
    """A job that is followed, and a clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.report = health(indexer=stage(wait()))
        self.asked = 0
        self.told: list[str] = []
        self.notice = StallNotice(self, self.told.append, clock=lambda: self.seconds)

    def get(self, path: str, **_params: Any) -> Any:
        assert path == "/health"
        self.asked += 1
        return self.report

    def follow(self, until: float, progress: object) -> None:
        """Look four times a second."""
        while self.seconds < until:
            self.seconds += 0.25
            self.notice.watch(progress)


def test_a_job_that_progresses_needs_no_explanation() -> None:
    world = World()
    for ended in range(1, 20):
        world.follow(until=9.0 * ended, progress=ended)
    assert world.asked == 0


def test_the_cause_is_printed_once_after_ten_seconds() -> None:
    world = World()
    world.follow(until=10.0, progress=0)
    assert world.told == []
    world.follow(until=300.0, progress=0)
    assert world.told == [f"No progress. indexer: qdrant unreachable since {SINCE} (refused)"]
    assert world.asked < 150


def test_another_cause_is_printed_as_well() -> None:
    world = World()
    world.follow(until=20.0, progress=0)
    world.report = health(embedder=stage(workers=0))
    world.follow(until=30.0, progress=0)
    assert [line.split(":")[0] for line in world.told] == [
        "No progress. indexer",
        "No progress. embedder",
    ]


def test_the_time_of_another_day_has_its_date() -> None:
    now = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
    assert local_time("2026-11-27T12:00:00Z", now) == f"{now.astimezone():%H:%M}"
    assert local_time("2026-11-20T12:00:00Z", now) == f"{now.astimezone():2026-11-20 %H:%M}"
