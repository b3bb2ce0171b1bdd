"""What `make compose-test` does with a deployment. A surprise is an AssertionError."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cli.client import ApiClient
from tests.compose.deployment import PROCESSES, SERVERS, Deployment
from tests.compose.images import own_image, sizes
from tests.compose.proxy import wrong_answers
from tests.compose.traffic import (
    LIST_POINTS,
    Crawl,
    make_pages,
    not_found,
    wait_for_crawl,
    wrong_points,
)

_QUIET_PAGES = 60
_BUSY_PAGES = 240
_EMBEDDERS = 4
_CRAWL_SECONDS = 900.0
_BUSY_PACE = 0.4  # seconds between pages: the sender is still at work when services stop


class Figures(msgspec.Struct, kw_only=True):
    """What was measured. Times in seconds, memory in MiB."""

    compose: str = ""
    engine: str = ""
    stand_ins: list[str] = []
    layers: list[tuple[str, str]] = []
    build_s: float = 0.0  # with what Docker had cached
    healthy_s: float = 0.0  # `up --build` with the image built
    idle_mib: dict[str, float] = {}
    loaded_mib: dict[str, float] = {}
    quiet_crawl_s: float = 0.0
    busy_crawl_s: float = 0.0
    restart_s: dict[str, float] = {}
    kill_s: dict[str, float] = {}
    resent: int = 0  # webhook events that were answered late or not at first
    documents: int = 0
    chunks: int = 0
    points: int = 0


def run_scenario(deployment: Deployment, figures: Figures, say: Callable[[str], None]) -> None:
    """Start everything, disturb it under load, and check that every page is there once."""
    _start(deployment, figures, say)
    api = ApiClient(deployment.url, deployment.secrets["WEBHOOK_API_SECRET"])
    figures.idle_mib = deployment.memory()
    wrong = wrong_answers(deployment.ports, deployment.secrets["WEBHOOK_API_SECRET"])
    assert not wrong, wrong
    say("the proxy passes what it should")

    started = time.monotonic()
    _crawl(deployment, api, range(_QUIET_PAGES), 0.0, lambda: None)
    figures.quiet_crawl_s = time.monotonic() - started
    say(f"{_QUIET_PAGES} pages in {figures.quiet_crawl_s:.0f} s")

    numbers = range(_QUIET_PAGES, _QUIET_PAGES + _BUSY_PAGES)
    started = time.monotonic()
    crawl = _crawl(deployment, api, numbers, _BUSY_PACE, lambda: _disturb(deployment, figures, say))
    figures.busy_crawl_s, figures.resent = time.monotonic() - started, crawl.resent
    say(f"{_BUSY_PAGES} pages in {figures.busy_crawl_s:.0f} s, {crawl.resent} events sent again")
    _check(deployment, api, figures)
    say(
        f"{figures.documents} documents, {figures.chunks} chunks, {figures.points} points: none lost, none doubled"
    )


def _start(deployment: Deployment, figures: Figures, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    deployment.compose("build")
    figures.build_s = time.monotonic() - started
    figures.layers = sizes(own_image())
    say(f"image built in {figures.build_s:.0f} s")
    started = time.monotonic()
    deployment.compose("up", "--build", "--detach")
    deployment.wait_until_healthy([*SERVERS, *PROCESSES])
    figures.healthy_s = time.monotonic() - started
    say(f"everything is healthy {figures.healthy_s:.0f} s after `up`")


def _crawl(
    deployment: Deployment,
    api: ApiClient,
    numbers: range,
    pace: float,
    meanwhile: Callable[[], None],
) -> Crawl:
    """Send a crawl, do something else meanwhile, and wait until its pages are indexed."""
    crawl = Crawl(
        api, deployment.secrets["WEBHOOK_SECRET"], make_pages(numbers.start, len(numbers)), pace
    )
    crawl.start()
    meanwhile()
    crawl.join(_CRAWL_SECONDS)
    assert not crawl.is_alive(), "the crawl was not accepted in time"
    assert not crawl.errors, crawl.errors
    totals = wait_for_crawl(api, crawl, len(numbers), timeout=_CRAWL_SECONDS)
    assert totals["documents"] == {"indexed": len(numbers)}, totals
    return crawl


def _disturb(deployment: Deployment, figures: Figures, say: Callable[[str], None]) -> None:
    """Scale, restart and kill while pages are in flight."""
    deployment.compose("up", "--detach", "--no-recreate", "--scale", f"embedder={_EMBEDDERS}")
    deployment.wait_until_healthy(["embedder"])
    assert len(deployment.containers("embedder")) == _EMBEDDERS
    say(f"{_EMBEDDERS} embedders")
    figures.loaded_mib = deployment.memory()
    for service in (*PROCESSES, *SERVERS):
        figures.restart_s[service] = deployment.restart(service)
        say(f"{service} restarted in {figures.restart_s[service]:.1f} s")
    for server in ("qdrant", "redis"):
        figures.kill_s[server] = deployment.kill(server)
        say(f"{server} killed, healthy again after {figures.kill_s[server]:.1f} s")


def _check(deployment: Deployment, api: ApiClient, figures: Figures) -> None:
    numbers = range(_QUIET_PAGES + _BUSY_PAGES)
    missing = not_found(api, numbers)
    assert not missing, f"not found: {missing}"
    [collection] = api.get("/api/stats")["collections"]
    points = list(_points(json.loads(deployment.execute("search", "python", "-c", LIST_POINTS))))
    figures.documents, figures.chunks = collection["documents"], collection["chunks"]
    figures.points = len(points)
    wrong = wrong_points(points, numbers, figures.chunks)
    assert not wrong, wrong
    assert figures.documents == len(numbers)


def _points(rows: list[list[Any]]) -> Iterator[tuple[str, int]]:
    yield from ((url, index) for url, index in rows)
