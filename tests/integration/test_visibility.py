"""What searchers see of pages that change and go all the time: always one version of each, in the
end the last one.
"""

import os
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.inspection import expected_ids, is_quiet, stored_ids
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(1200)

REVISIONS = int(
    os.environ.get("MILLSTREAM_REVISIONS", "40")
)  # 200 past the fence: test_search_while_indexing.py
SEARCHERS = 4
MODES = ("hybrid", "semantic", "keyword")


def revision_of(text: str) -> str:
    """Every sentence of a page names the revision that it is of."""
    (revision,) = {word for word in text.replace(".", " ").split() if word.startswith("revision")}
    return revision


def page(revision: int) -> str:
    """One to three chunks, so that revisions leave chunks behind that the next one does not have."""
    sections = [
        f"## Part {part}\n\n" + f"The walrus of revision{revision} rests on the ice. " * 16
        for part in range(revision % 3 + 1)
    ]
    return "# Walrus\n\n" + "\n\n".join(sections)


class Searcher:
    """Asks for one page again and again, and keeps what was wrong with the answers."""

    def __init__(self, pipeline: Pipeline, url: str, mode: str) -> None:
        self._url = f"{pipeline.env['MILLSTREAM_URL']}/api/search"
        self._headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}
        filters = {"url_prefix": url}
        self._request = {
            "query": "walrus",
            "mode": mode,
            "collapse": "chunk",
            "limit": 20,
            "filters": filters,
        }
        self.answers = 0
        self.seen: set[str] = set()
        self.wrong: list[str] = []

    def run(self, is_over: threading.Event) -> None:
        with httpx.Client(headers=self._headers, timeout=30.0, trust_env=False) as http:
            while not is_over.is_set():
                answer: dict[str, Any] = http.post(self._url, json=self._request).json()
                revisions = {revision_of(result["text"]) for result in answer["results"]}
                self.answers += 1
                self.seen |= revisions
                if len(revisions) != 1 or answer["degraded"]:
                    self.wrong.append(f"{sorted(revisions)}, degraded: {answer['degraded']}")


def while_searching(searchers: list[Searcher], work: Callable[[], None]) -> None:
    is_over = threading.Event()
    with ThreadPoolExecutor(len(searchers)) as threads:
        running = [threads.submit(searcher.run, is_over) for searcher in searchers]
        try:
            work()
        finally:
            is_over.set()
        for each in running:
            each.result()


def test_a_page_that_is_indexed_again_and_again_is_always_found_in_one_version(
    pipeline: Pipeline,
) -> None:
    url = f"https://example.com/{uuid.uuid4()}"

    def send(revision: int) -> str:
        answer = pipeline.http.post("/api/index", json={"url": url, "markdown": page(revision)})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    def send_all() -> None:
        for revision in range(1, REVISIONS):
            job_id = send(revision)
            if revision % 2:  # the others come while one is on its way
                pipeline.finished(job_id)
        pipeline.finished(send(REVISIONS))

    pipeline.finished(send(0))
    searchers = [Searcher(pipeline, url, MODES[number % len(MODES)]) for number in range(SEARCHERS)]
    while_searching(searchers, send_all)
    assert {mode: s.wrong for mode, s in zip(MODES, searchers, strict=False) if s.wrong} == {}
    assert sum(s.answers for s in searchers) >= REVISIONS
    assert len(set[str]().union(*(s.seen for s in searchers))) > REVISIONS // 4, (
        "the searches went on meanwhile"
    )

    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    for mode in MODES:
        hits = pipeline.search(
            "walrus", mode=mode, collapse="chunk", limit=100, filters={"url_prefix": url}
        )
        assert {revision_of(hit["text"]) for hit in hits} == {f"revision{REVISIONS}"}
        assert len(hits) == len({hit["chunk_index"] for hit in hits}) >= REVISIONS % 3 + 1
    gone = pipeline.search(f"revision{REVISIONS - 1}", mode="keyword", filters={"url_prefix": url})
    assert gone == []
    assert stored_ids(pipeline) == expected_ids(pipeline)


def actions(chance: random.Random) -> Iterator[bool]:
    """True for an index, False for a delete; at least one of each."""
    chosen = [True, False, *(chance.random() < 0.6 for _ in range(4))]
    chance.shuffle(chosen)
    yield from chosen


def test_of_indexes_and_deletes_that_overtake_each_other_the_last_accepted_one_wins(
    pipeline: Pipeline,
) -> None:
    chance = random.Random(20260101)
    run = uuid.uuid4().hex
    urls = [f"https://example.com/{run}/{number}" for number in range(12)]
    plans = {url: list(actions(chance)) for url in urls}
    jobs: list[str] = []
    for turn in range(6):  # in lanes of their own, so that they can overtake each other
        for url in chance.sample(urls, len(urls)):
            lane = chance.choice(["high", "normal", "low"])
            if plans[url][turn]:
                document = {"url": url, "markdown": f"A heron of revision{turn}.", "lane": lane}
                answer = pipeline.http.post("/api/index", json=document)
            else:
                answer = pipeline.http.delete("/api/documents", params={"url": url, "lane": lane})
            assert answer.status_code == 202, answer.text
            jobs.append(answer.json()["job_id"])
    ended = Counter(pipeline.finished(job)["results"][0]["status"] for job in jobs)
    assert set(ended) <= {"indexed", "deleted", "superseded", "unchanged"}

    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    for url, plan in plans.items():
        hits = pipeline.search(
            "heron", mode="keyword", collapse="chunk", filters={"url_prefix": url}
        )
        found = [revision_of(hit["text"]) for hit in hits if hit["url"] == url]
        assert found == (["revision5"] if plan[-1] else []), (url, plan)
    assert stored_ids(pipeline) == expected_ids(pipeline)
