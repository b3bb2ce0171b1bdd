"""Another model for a collection, while it is searched, written to, and its dispatcher is killed."""

import contextlib
import itertools
import json
import re
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from shared.tei.client import CANARY
from shared.tei.tokenizer import TOKENIZER_SHA256, bundled_file
from tests.support.documented import commands
from tests.support.inspection import expected_ids, is_quiet, query, stored_ids
from tests.support.pipeline import Pipeline, kill, replicated_pipeline
from tests.support.threaded_tei import ThreadedTei, threaded_tei
from tests.support.waiting import block_until

pytestmark = pytest.mark.timeout(300)

SITE = "https://example.com"
TOKENIZER = str(bundled_file("tokenizer.json", TOKENIZER_SHA256))
MODES = ("hybrid", "keyword", "semantic")


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[ThreadedTei, ThreadedTei]]:
    with threaded_tei(64) as first, threaded_tei(96) as second:
        yield first, second


@pytest.fixture(scope="module")
def pipeline(models: tuple[ThreadedTei, ThreadedTei]) -> Iterator[Pipeline]:
    """One of its own: the servers of the models end with these tests, and collections that name
    them would be left.
    """
    allowed = ",".join([*(urlsplit(tei.url).netloc for tei in models), "127.0.0.1:9"])
    with replicated_pipeline(
        WEBHOOK_TEI_ALLOWED=allowed, WEBHOOK_TOKENIZER_DIRECTORY=str(Path(TOKENIZER).parent)
    ) as running:
        yield running


@pytest.fixture
def teis(models: tuple[ThreadedTei, ThreadedTei]) -> Iterator[tuple[ThreadedTei, ThreadedTei]]:
    """Two models, of 64 and of 96 dimensions."""
    yield models
    for tei in models:
        tei.release()


def new_collection(pipeline: Pipeline, tei: ThreadedTei | None = None) -> str:
    """A collection of its own, on a server of its own if one is given."""
    name = f"reindex-{uuid.uuid4().hex[:8]}"
    if tei is not None:
        made = pipeline.cli("collections", "create", name, "--tei-url", tei.url, "--json")
        assert made.returncode == 0, made.stderr
    return name


def send(pipeline: Pipeline, collection: str, texts: dict[str, str]) -> str:
    """Send pages by their names, as soon as ingest is there to take them; the job id."""
    documents = [{"url": f"{SITE}/{name}", "markdown": text} for name, text in texts.items()]
    body = {"documents": documents, "collection": collection, "lane": "normal"}
    return str(request(pipeline, "POST", "/api/index/batch", json=body)["job_id"])


def delete(pipeline: Pipeline, collection: str, name: str) -> str:
    params = {"url": f"{SITE}/{name}", "collection": collection}
    return str(request(pipeline, "DELETE", "/api/documents", params=params)["job_id"])


def request(pipeline: Pipeline, method: str, path: str, **options: Any) -> Any:
    """Repeat a request while nobody listens: a killed ingest is started again on its port."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answers.append(pipeline.http.request(method, path, **options))
        return bool(answers)

    block_until(is_answered, timeout=30, description=f"an answer to {method} {path}")
    assert answers[0].is_success, answers[0].text
    return answers[0].json()


def start(pipeline: Pipeline, collection: str, tei: ThreadedTei) -> None:
    request(pipeline, "POST", "/api/reindex", json={"collection": collection, "tei_url": tei.url})


def state(pipeline: Pipeline, collection: str) -> dict[str, Any]:
    (found,) = request(pipeline, "GET", "/api/reindex", params={"collection": collection})[
        "reindexes"
    ]
    return dict(found)


def await_end(pipeline: Pipeline, job_id: str) -> None:
    def finished_at() -> Any:
        return request(pipeline, "GET", f"/api/jobs/{job_id}")["finished_at"]

    block_until(finished_at, timeout=60, description="the job's end")


def await_phase(pipeline: Pipeline, collection: str, phase: str) -> None:
    block_until(
        lambda: state(pipeline, collection)["phase"] == phase,
        timeout=60,
        description=f"{phase}: {state(pipeline, collection)}",
    )


def found(pipeline: Pipeline, collection: str, mode: str = "keyword") -> dict[str, str]:
    """The text of every page that a search for a word on all of them finds."""
    hits = pipeline.search("badger", collection=collection, mode=mode, limit=100)
    return {hit["url"].rpartition("/")[2]: hit["text"] for hit in hits}


def live_dimension(pipeline: Pipeline, collection: str) -> int:
    (row,) = query(
        pipeline, "SELECT dimension FROM webhook.targets WHERE collection = $1 AND live", collection
    )
    return int(row["dimension"])


class SearchLoop:
    """Searches for one page again and again; an answer without it, or with two versions of it, is a
    mistake.
    """

    def __init__(self, pipeline: Pipeline, collection: str, name: str) -> None:
        self._pipeline = pipeline
        self._request = {
            "query": "badger steady",
            "collection": collection,
            "limit": 100,
            "collapse": "chunk",
        }
        self._url = f"{SITE}/{name}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searches")
        self.answers: Counter[str] = Counter()
        self.mistakes: list[Any] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._pipeline.env['WEBHOOK_API_SECRET']}"}
        url = self._pipeline.env["MILLSTREAM_URL"]
        with httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False) as client:
            for mode in itertools.cycle(MODES):
                if self._stop.is_set():
                    return
                answer = client.post("/api/search", json={**self._request, "mode": mode})
                if answer.status_code == 503 and "no embedding within" in answer.text:
                    continue  # a busy machine, not a wrong answer
                self.answers[mode] += 1
                if mistake := self._mistake(answer):
                    self.mistakes.append((mode, mistake))

    def _mistake(self, answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            return answer.text
        urls = Counter(hit["url"] for hit in answer.json()["results"])
        doubled = [url for url, count in urls.items() if count > 1]  # every page has one chunk
        return None if urls[self._url] == 1 and not doubled else (urls, doubled)


def test_another_dimension_under_searches_changes_and_deletes(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    collection = new_collection(pipeline)
    last = {f"page-{n}": f"The badger of page {n}." for n in range(24)} | {
        "steady": "The badger is steady."
    }
    pipeline.finished(send(pipeline, collection, last))
    with SearchLoop(pipeline, collection, "steady") as searches:
        start(pipeline, collection, teis[1])
        for turn in itertools.count():
            changed, gone = f"page-{turn % 12}", f"page-{12 + turn % 12}"
            news = {
                changed: f"The badger of turn {turn}.",
                "steady": f"The badger is steady, {turn}.",
            }
            last |= news
            jobs = [send(pipeline, collection, news)]
            if turn % 3 == 0:
                jobs.append(delete(pipeline, collection, gone))
                last.pop(gone, None)
            # A job that began before the switch and ends after it is waited for across it.
            assert [pipeline.finished(job)["failed"] for job in jobs] == [0] * len(jobs)
            if state(pipeline, collection)["phase"] == "switched":
                break
    assert searches.mistakes == []
    assert min(searches.answers[mode] for mode in MODES) > 0
    assert found(pipeline, collection) == last
    assert found(pipeline, collection, "semantic") == last
    assert live_dimension(pipeline, collection) == 96
    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    assert stored_ids(pipeline, f"{collection}_2") == expected_ids(pipeline, collection)
    expected = expected_ids(pipeline, collection)
    block_until(
        lambda: stored_ids(pipeline, collection) == expected,
        timeout=30,
        description="the alias to lead to the new target",
    )


def test_it_goes_on_after_every_ingest_is_killed_in_each_phase(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    first, second = teis
    collection = new_collection(pipeline, first)
    pages = {f"page-{n}": f"The badger of {collection}, {n}." for n in range(6)}
    pipeline.finished(send(pipeline, collection, pages))
    second.hold()
    start(pipeline, collection, second)
    block_until(lambda: second.in_flight, timeout=30, description="transfers in flight")
    kill_all(pipeline, "ingest")
    assert state(pipeline, collection)["phase"] == "filling"

    first.hold()
    slow = send(pipeline, collection, {"page-0": "The badger is slow."})
    block_until(
        lambda: first.in_flight, timeout=30, description="a document in flight for the old target"
    )
    kill_all(pipeline, "embedder")
    second.release()
    await_phase(pipeline, collection, "pausing")
    kill_all(pipeline, "ingest")
    late = send(pipeline, collection, {"page-1": "The badger is late."})
    gone = delete(pipeline, collection, "page-2")

    first.release()
    await_phase(pipeline, collection, "switched")
    kill_all(pipeline, "ingest")
    for job in (slow, late, gone):
        await_end(pipeline, job)
    pages |= {"page-0": "The badger is slow.", "page-1": "The badger is late."}
    del pages["page-2"]
    assert found(pipeline, collection) == pages
    assert "The badger is late." not in first.texts
    block_until(lambda: is_quiet(pipeline), timeout=20, description="empty streams")
    assert stored_ids(pipeline, f"{collection}_2") == expected_ids(pipeline, collection)


def kill_all(pipeline: Pipeline, service: str) -> None:
    """Kill every process of a service; they are started again by themselves."""
    victims = pipeline.pids(service)
    for pid in victims:
        kill(pid)
    block_until(
        lambda: not set(pipeline.pids(service)) & set(victims),
        timeout=30,
        description=f"{service} to be started again",
    )


def test_a_rollback_keeps_what_was_changed_and_deleted_since_the_switch(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    first, second = teis
    collection = new_collection(pipeline, first)
    pages = {name: f"The badger of {name} in {collection}." for name in ("same", "changed", "gone")}
    pipeline.finished(send(pipeline, collection, pages))
    options = ("--collection", collection, "--json")
    done = pipeline.cli(
        "reindex", "--tei-url", second.url, "--max-chunk-tokens", "128", "--follow", *options
    )
    assert (done.returncode, '"phase":"switched"' in done.stdout) == (0, True), done.stderr
    assert "documents missing" in done.stderr
    pipeline.finished(
        send(
            pipeline,
            collection,
            {"changed": "The badger has changed.", "fresh": "The badger is new."},
        )
    )
    pipeline.finished(delete(pipeline, collection, "gone"))

    embedded = len(first.texts)
    assert pipeline.cli("reindex", "--rollback", "--follow", *options).returncode == 0
    assert live_dimension(pipeline, collection) == 64
    expected = {
        "same": pages["same"], "changed": "The badger has changed.", "fresh": "The badger is new.",
    }  # fmt: skip
    assert found(pipeline, collection) == expected
    assert found(pipeline, collection, "semantic") == expected
    assert set(first.texts[embedded:]) - {"badger", CANARY} == {
        "The badger has changed.",
        "The badger is new.",
    }

    dropped = pipeline.cli("reindex", "--drop-retired", *options)
    assert f"{collection}_2" in dropped.stdout
    block_until(
        lambda: not has_collection(pipeline, f"{collection}_2"),
        timeout=30,
        description="the retired points to be deleted",
    )
    assert pipeline.cli("reindex", "--rollback", *options).returncode == 4
    assert found(pipeline, collection) == expected


def has_collection(pipeline: Pipeline, target: str) -> bool:
    answer = httpx.get(
        f"{pipeline.env['WEBHOOK_QDRANT_URL']}/collections/{target}/exists",
        headers={"api-key": pipeline.env.get("WEBHOOK_QDRANT_API_KEY", "")}, trust_env=False,
    )  # fmt: skip
    return bool(answer.json()["result"]["exists"])


def test_a_collection_on_a_model_of_its_own_beside_the_default_one(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    collection, plain = new_collection(pipeline, teis[0]), new_collection(pipeline)
    for name in (collection, plain):
        pipeline.finished(send(pipeline, name, {"page": f"The badger of {name}."}))
        assert found(pipeline, name, "semantic") == {"page": f"The badger of {name}."}
    assert (live_dimension(pipeline, collection), live_dimension(pipeline, plain)) == (64, 384)
    assert f"The badger of {collection}." in teis[0].texts
    assert f"The badger of {plain}." not in teis[0].texts
    listed = request(pipeline, "GET", "/api/collections")["collections"]
    assert {(row["name"], row["model"], row["dimension"]) for row in listed} >= {
        (collection, "stand-in", 64)
    }


def test_what_cannot_be_is_refused_at_once(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    collection = new_collection(pipeline, teis[0])
    ask = pipeline.http.post
    assert ask("/api/collections", json={"name": collection}).status_code == 409
    assert ask("/api/reindex", json={"collection": "unheard-of"}).status_code == 404
    assert ask("/api/reindex/rollback", json={"collection": collection}).status_code == 404
    away = ask("/api/reindex", json={"collection": collection, "tei_url": "http://127.0.0.1:9"})
    assert (away.status_code, "cannot be used" in away.text) == (422, True)
    wide = ask(
        "/api/reindex",
        json={"collection": collection, "tei_url": teis[0].url, "max_chunk_tokens": 4096},
    )
    assert (wide.status_code, "512 tokens" in wide.text) == (422, True)
    assert (
        query(pipeline, "SELECT 1 FROM webhook.reindexes WHERE collection = $1", collection) == []
    )


def test_settings_that_lead_to_other_hosts_or_files_are_refused_and_nothing_is_asked(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    collection = new_collection(pipeline, teis[0])
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        url = f"http://{address}"
        for path, body in {
            "/api/collections": {"name": "elsewhere", "tei_url": url},
            "/api/reindex": {"collection": collection, "tei_url": f"{teis[1].url},{url}"},
            "/api/reindex/rollback": {"collection": collection, "tei_url": url},
        }.items():
            refused = pipeline.http.post(path, json=body)
            assert (refused.status_code, f"{address} is not allowed" in refused.text) == (422, True)
        assert not was_contacted(other)
    for tokenizer in ("/dev/zero", "../tokenizer.json", "/etc/passwd"):
        wanted = {"collection": collection, "tokenizer": tokenizer}
        refused = pipeline.http.post("/api/reindex", json=wanted)
        assert (refused.status_code, "`tokenizer`" in refused.text) == (422, True)
    assert query(pipeline, "SELECT 1 FROM webhook.targets WHERE collection = 'elsewhere'") == []


def test_documents_of_a_collection_on_a_server_that_is_not_allowed_wait_and_cost_no_attempt(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    collection, beside = new_collection(pipeline, teis[0]), new_collection(pipeline, teis[1])
    move = "UPDATE webhook.targets SET tei_url = $2 WHERE collection = $1"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        query(pipeline, move, collection, f"http://{address}")  # as an older version allowed it
        job = send(pipeline, collection, {"page": "The badger of another host."})
        block_until(
            lambda: f"{address} is not allowed" in str(item_of(pipeline, job)["error"]),
            timeout=60,
            description="the reason at the document",
        )
        pipeline.finished(send(pipeline, beside, {"page": "The badger beside it."}))
        (finding,) = [
            each
            for each in json.loads(pipeline.cli("doctor", "--json").stdout)["findings"]
            if each["check"] == "collection.allowed"
        ]
        assert (finding["verdict"], collection in finding["found"]) == ("fail", True)
        assert "WEBHOOK_TEI_ALLOWED" in finding["remedy"]
        assert not was_contacted(other)
    query(pipeline, move, collection, teis[0].url)
    ended = pipeline.finished(job)
    assert (ended["failed"], ended["succeeded"]) == (0, 1)
    assert item_of(pipeline, job)["attempts"] == 0


def item_of(pipeline: Pipeline, job_id: str) -> dict[str, Any]:
    statement = "SELECT error, attempts FROM webhook.job_items WHERE job_id = $1::uuid"
    (item,) = query(pipeline, statement, job_id)
    return item


def was_contacted(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_the_documented_commands_do_what_the_page_says(
    pipeline: Pipeline, teis: tuple[ThreadedTei, ThreadedTei]
) -> None:
    first, second = teis
    collection = f"reindex-{uuid.uuid4().hex[:8]}"
    words = {"NAME": collection, "...": first.url, "http://bge:8080": second.url}
    words["/models/bge.json"] = TOKENIZER
    page = Documented(pipeline, collection, words)
    page.run("collections create")
    page.run("collections list")
    pipeline.finished(send(pipeline, collection, {"a": "A badger"}))
    page.run("--follow")
    assert live_dimension(pipeline, collection) == 96
    page.run("--status")
    page.run("--rollback")
    await_phase(pipeline, collection, "switched")
    assert live_dimension(pipeline, collection) == 64
    second.hold()
    pipeline.finished(send(pipeline, collection, {"b": "Another badger"}))
    start(pipeline, collection, second)
    page.run("--skip-failed")
    page.run("--cancel")
    second.release()
    page.run("--defaults")
    await_phase(pipeline, collection, "switched")
    page.run("--drop-retired")
    assert set(found(pipeline, collection)) == {"a", "b"}
    assert page.left == []


class Documented:
    """The commands of docs/reindex.md that are about one collection, each to be run once."""

    def __init__(self, pipeline: Pipeline, collection: str, words: dict[str, str]) -> None:
        """`words` are what the page's examples stand for."""
        self._pipeline = pipeline
        self._collection = collection
        self._words = words
        self.left = [
            line
            for line in commands("reindex.md")
            if re.match(r"millstream (reindex|collections) ", line)
        ]

    def run(self, part: str) -> None:
        """Run the only one that is left with this in it."""
        (line,) = [line for line in self.left if part in line]
        self.left.remove(line)
        arguments = [self._words.get(word, word) for word in line.split()[1:]]
        if arguments[0] == "reindex":
            arguments += ["--collection", self._collection]
        ran = self._pipeline.cli(*arguments)
        assert ran.returncode == 0, (line, ran.stderr)
