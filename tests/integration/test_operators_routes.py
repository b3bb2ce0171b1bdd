"""Streams and dead letters as an operator sees them: over HTTP and with the command line, on a
running pipeline.
"""

import contextlib
import fcntl
import functools
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from tests.support.failed_documents import FailedDocument, failed_document
from tests.support.held import HeldEntry
from tests.support.local_stack import bare_environ
from tests.support.pipeline import MILLSTREAM, Pipeline, frozen
from tests.support.waiting import block_until


def letters_of(pipeline: Pipeline, **params: Any) -> list[dict[str, Any]]:
    response = pipeline.http.get("/api/dead-letters", params=params)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["dead_letters"]
    return found


def command(pipeline: Pipeline, *arguments: str) -> Any:
    """The JSON that a command prints."""
    result = pipeline.cli(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def failed(pipeline: Pipeline) -> Iterator[FailedDocument]:
    """A job of one document that failed with a code of its own."""
    document = failed_document(pipeline)
    yield document
    pipeline.http.delete("/api/dead-letters", params={"code": document.code, "replayed": "true"})


def test_streams_show_every_stage_lane_and_consumer_and_how_fast_it_goes(
    pipeline: Pipeline,
) -> None:
    def stages() -> Any:
        found = pipeline.http.get("/api/streams").json()["stages"]
        return found if all(stage["rate_per_s"] is not None for stage in found) else None

    found = block_until(stages, timeout=20, description="a rate of every stage")
    assert [stage["stage"] for stage in found] == list(StageName)
    for stage in found:
        assert [lane["lane"] for lane in stage["lanes"]] == list(Lane)
        for lane in stage["lanes"]:
            assert len(lane["consumers"]) >= 2
            assert set(lane) == {
                "lane", "stream", "depth", "lag", "pending", "oldest_age_ms", "oldest_idle_ms", "redeliveries",
                "consumers",
            }  # fmt: skip


def test_the_streams_commands_print_tables_and_json(pipeline: Pipeline) -> None:
    table = pipeline.cli("streams")
    assert table.returncode == 0, table.stderr
    assert all(stage in table.stdout for stage in StageName)
    assert command(pipeline, "streams", "pending", "embedder", "--idle-over", "1h") == {
        "stage": "embedder", "entries": [], "next": None,
    }  # fmt: skip


@pytest.mark.parametrize(("options", "sign"), [(["--json"], b'{"stages":'), ([], b"redeliveries")])
def test_streams_are_watched_until_ctrl_c(
    pipeline: Pipeline, options: list[str], sign: bytes
) -> None:
    shown, status = watched(pipeline, options, sign)
    assert status == 0, shown
    assert shown.count(sign) >= 3
    if options:
        for line in shown.decode().split("\r\n")[:-1]:
            assert [stage["stage"] for stage in json.loads(line)["stages"]] == list(StageName)


def watched(pipeline: Pipeline, options: list[str], sign: bytes) -> tuple[bytes, int]:
    """What `streams --watch` shows on a terminal, interrupted when it has shown `sign` three times;
    its status.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    watching = subprocess.Popen(
        [*MILLSTREAM, "streams", "--watch", "--interval", "0.1", *options],
        stdin=theirs, stdout=theirs, stderr=theirs, env=bare_environ(**pipeline.env, TERM="xterm"),
        # A background job of a script ignores Ctrl-C, and so would every process that these tests
        # start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
    )  # fmt: skip
    os.close(theirs)
    shown, is_interrupted = b"", False
    try:
        with contextlib.suppress(OSError):  # what a terminal says when nobody writes to it any more
            while True:  # to the end: a process that writes to a terminal without a reader blocks
                shown += os.read(ours, 100_000)
                if not is_interrupted and shown.count(sign) >= 3:
                    watching.send_signal(signal.SIGINT)
                    is_interrupted = True
        return shown, watching.wait(timeout=20)
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)


def test_a_pending_entry_is_claimed_released_and_given_up_by_hand(pipeline: Pipeline) -> None:
    with frozen(pipeline.pids("chunker")):
        entry, other = HeldEntry(pipeline), HeldEntry(pipeline)
        path = f"/api/streams/chunker/pending/{entry.id}"
        wrong = pipeline.http.post(f"{path}/claim", params={"consumer": "chunker:other:1:000000"})
        assert (wrong.status_code, "holds the entry" in wrong.json()["detail"]) == (409, True)
        claimed = command(pipeline, "streams", "claim", "chunker", entry.id, "--lane", "normal")
        assert (claimed["id"], claimed["lane"], claimed["held_for_s"]) == (entry.id, "normal", 3.0)
        assert entry.row is not None
        assert (entry.row["consumer"][:9], entry.row["deliveries"]) == ("operator:", 0)
        given_up = command(
            pipeline, "streams", "dead-letter", "chunker", entry.id, "--reason", "it hangs"
        )
        assert given_up["dead_letters"] == 1
        assert pipeline.http.post(f"{path}/release").status_code == 404
        released = pipeline.cli("streams", "release", "chunker", other.id)
        assert f"{other.id} taken from chunker:" in released.stdout, released.stderr
    assert pipeline.finished(other.job_id)["status"] == "succeeded"
    [dead_letter] = letters_of(pipeline, job_id=entry.job_id)
    assert (dead_letter["code"], dead_letter["stage"], dead_letter["error"]) == (
        "given_up",
        "chunker",
        "it hangs",
    )
    assert command(pipeline, "jobs", "retry", entry.job_id)["retried"] == 1
    assert pipeline.finished(entry.job_id)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/streams/parser/pending", 404),
        ("GET", "/api/streams/chunker/pending?idle_over=soon", 422),
        ("GET", "/api/streams/chunker/pending?limit=0", 422),
        ("GET", "/api/streams/chunker/pending?after=x", 422),
        ("POST", "/api/streams/parser/pending/1-1/claim", 404),
        ("POST", "/api/streams/chunker/pending/1-1/release", 404),
        ("POST", "/api/streams/chunker/pending/99999999999999999999-1/claim", 404),
        ("POST", "/api/streams/chunker/pending/1-1/dead-letter?lane=slow", 422),
        ("GET", "/api/dead-letters?stage=parser", 422),
        ("GET", "/api/dead-letters?cod=bad", 422),
        ("GET", "/api/dead-letters/9000000000000000", 404),
        ("GET", "/api/dead-letters/99999999999999999999999", 404),
        ("GET", "/api/dead-letters/last", 404),
        ("DELETE", "/api/dead-letters", 422),
        ("DELETE", "/api/dead-letters?dry_run=true", 422),
    ],
)
def test_an_invalid_request_is_a_problem_with_a_reason(
    pipeline: Pipeline, method: str, path: str, status: int
) -> None:
    response = pipeline.http.request(method, path)
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.json()["detail"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b'{"cod": "x"}', 422), (b"[]", 422)])
def test_an_invalid_replay_is_refused(pipeline: Pipeline, body: bytes, status: int) -> None:
    assert pipeline.http.post("/api/dead-letters/replay", content=body).status_code == status


def test_a_failed_document_is_found_shown_and_indexed_when_replayed(
    pipeline: Pipeline, failed: FailedDocument
) -> None:
    [dead_letter] = letters_of(pipeline, code=failed.code, job_id=failed.job_id, since="1h")
    assert (dead_letter["id"], dead_letter["url"], dead_letter["stage"]) == (
        failed.letter_id,
        failed.url,
        "indexer",
    )
    details = pipeline.http.get(f"/api/dead-letters/{dead_letter['id']}").json()
    assert details["text"] == "# Tapir\n\nThe tapir swims."

    def replay(**options: Any) -> dict[str, Any]:
        response = pipeline.http.post(
            "/api/dead-letters/replay", json={"ids": [dead_letter["id"]], **options}
        )
        assert response.status_code == (200 if options else 202), response.text
        answer: dict[str, Any] = response.json()
        return answer

    counts = {"replayed": 1, "superseded": 0, "without_text": 0, "without_item": 0}
    assert replay(dry_run=True) == {**counts, "dry_run": True}
    assert replay() == {**counts, "dry_run": False}
    assert replay()["replayed"] == 0
    job = pipeline.finished(failed.job_id)
    assert (job["status"], job["failed"], job["results"][0]["status"]) == (
        "succeeded",
        0,
        "indexed",
    )
    assert letters_of(pipeline, code=failed.code) == []
    assert [each["id"] for each in letters_of(pipeline, code=failed.code, replayed="true")] == [
        dead_letter["id"]
    ]


def test_the_dead_commands_list_show_replay_and_drop(
    pipeline: Pipeline, failed: FailedDocument
) -> None:
    code, letter_id = failed.code, str(failed.letter_id)
    [dead_letter] = command(pipeline, "dead", "list", "--code", code, "--stage", "indexer")[
        "dead_letters"
    ]
    assert dead_letter["id"] == failed.letter_id
    for for_people in (
        pipeline.cli("dead", "list", "--code", code),
        pipeline.cli("dead", "show", letter_id),
    ):
        assert for_people.returncode == 0, for_people.stderr
        assert "it [/broke]" in for_people.stdout
    assert (
        "1 documents would be queued again"
        in pipeline.cli("dead", "replay", letter_id, "--dry-run").stdout
    )
    assert command(pipeline, "dead", "replay", "--job", failed.job_id)["replayed"] == 1
    assert pipeline.finished(failed.job_id)["status"] == "succeeded"
    assert command(pipeline, "dead", "drop", letter_id) == {"dropped": 1, "dry_run": False}
    assert letters_of(pipeline, code=code, replayed="true") == []


def test_an_entry_that_cannot_be_read_is_a_dead_letter_that_can_only_be_dropped(
    pipeline: Pipeline,
) -> None:
    mark = f"not a header {uuid.uuid4()}"
    with Redis.from_url(pipeline.env["WEBHOOK_REDIS_URL"]) as redis:
        redis.xadd(StageName.CHUNKER.stream(Lane.NORMAL), {"h": mark, "b": b"12345"})

    def malformed_ones() -> list[dict[str, Any]]:
        found = [
            dead_letter["id"]
            for dead_letter in letters_of(pipeline, code="malformed", stage="chunker")
        ]
        details = [
            pipeline.http.get(f"/api/dead-letters/{letter_id}").json() for letter_id in found
        ]
        return [dead_letter for dead_letter in details if dead_letter["header"] == mark]

    [dead_letter] = block_until(
        malformed_ones, timeout=20, description="the dead letter of the unreadable entry"
    )
    assert (
        dead_letter["job_id"],
        dead_letter["url"],
        dead_letter["header_bytes"],
        dead_letter["body_bytes"],
    ) == (
        None,
        None,
        len(mark),
        5,
    )
    ids = {"ids": [dead_letter["id"]]}
    assert pipeline.http.post("/api/dead-letters/replay", json=ids).json()["without_item"] == 1
    assert (
        pipeline.http.delete("/api/dead-letters", params={"ids": dead_letter["id"]}).json()[
            "dropped"
        ]
        == 1
    )
    assert malformed_ones() == []
