"""Streams and dead letters as an operator sees them: over HTTP and with the command line, on a running pipeline."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from shared.messages import Lane
from shared.streams import StageName
from tests.support.inspection import query
from tests.support.pipeline import Pipeline, wait_for

# A document that was indexed, made one that failed: its text is kept, and it can succeed again.
_FAIL_ITEM = """
UPDATE webhook.job_items SET state = 'failed', code = $2, error = 'it [/broke]', attempts = 5 WHERE job_id = $1
"""
_FAIL_JOB = "UPDATE webhook.jobs SET status = 'failed', succeeded = 0, failed = 1 WHERE job_id = $1"
_ADD_LETTER = """
INSERT INTO webhook.dead_letters (job_id, position, document_id, version, url, stage, code, error, attempts, deliveries)
SELECT job_id, position, document_id, version, url, 'indexer', code, error, attempts, 1
FROM webhook.job_items WHERE job_id = $1 RETURNING id
"""


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
def failed(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """A job of one document that failed with a code of its own: `job_id`, `code`, `url`, `id` of the letter."""
    url, code = f"https://example.com/{uuid.uuid4()}", f"test_{uuid.uuid4().hex}"
    job_id = pipeline.index([{"url": url, "markdown": "# Tapir\n\nThe tapir swims."}])
    assert pipeline.finished(job_id)["status"] == "succeeded"
    query(pipeline, _FAIL_ITEM, job_id, code)
    query(pipeline, _FAIL_JOB, job_id)
    letter = query(pipeline, _ADD_LETTER, job_id)[0]["id"]
    yield {"job_id": job_id, "code": code, "url": url, "id": letter}
    pipeline.http.delete("/api/dead-letters", params={"code": code, "replayed": "true"})


def test_streams_show_every_stage_lane_and_consumer_and_how_fast_it_goes(pipeline: Pipeline) -> None:
    def stages() -> Any:
        found = pipeline.http.get("/api/streams").json()["stages"]
        return found if all(stage["rate_per_s"] is not None for stage in found) else None

    found = wait_for(stages, 20, "a rate of every stage")
    assert [stage["stage"] for stage in found] == list(StageName)
    for stage in found:
        assert [lane["lane"] for lane in stage["lanes"]] == list(Lane)
        for lane in stage["lanes"]:
            assert len(lane["consumers"]) >= 2
            assert set(lane) == {
                "lane", "stream", "depth", "lag", "pending", "oldest_idle_ms", "redeliveries", "consumers",
            }  # fmt: skip


def test_the_streams_commands_print_tables_and_json(pipeline: Pipeline) -> None:
    table = pipeline.cli("streams")
    assert table.returncode == 0, table.stderr
    assert all(stage in table.stdout for stage in StageName)
    assert command(pipeline, "streams", "pending", "embedder", "--idle-over", "1h") == {
        "stage": "embedder", "entries": [], "next": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/streams/parser/pending", 404),
        ("GET", "/api/streams/chunker/pending?idle_over=soon", 422),
        ("GET", "/api/streams/chunker/pending?limit=0", 422),
        ("GET", "/api/streams/chunker/pending?after=x", 422),
        ("GET", "/api/dead-letters?stage=parser", 422),
        ("GET", "/api/dead-letters?cod=bad", 422),
        ("GET", "/api/dead-letters/9000000000000000", 404),
        ("GET", "/api/dead-letters/99999999999999999999999", 404),
        ("GET", "/api/dead-letters/last", 404),
        ("DELETE", "/api/dead-letters", 422),
        ("DELETE", "/api/dead-letters?dry_run=true", 422),
    ],
)
def test_what_is_asked_wrongly_is_a_problem_with_a_reason(
    pipeline: Pipeline, method: str, path: str, status: int
) -> None:
    response = pipeline.http.request(method, path)
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.json()["detail"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b'{"cod": "x"}', 422), (b"[]", 422)])
def test_a_replay_that_is_asked_wrongly_is_refused(pipeline: Pipeline, body: bytes, status: int) -> None:
    assert pipeline.http.post("/api/dead-letters/replay", content=body).status_code == status


def test_a_failed_document_is_found_shown_and_indexed_when_replayed(pipeline: Pipeline, failed: dict[str, Any]) -> None:
    [letter] = letters_of(pipeline, code=failed["code"], job_id=failed["job_id"], since="1h")
    assert (letter["id"], letter["url"], letter["stage"]) == (failed["id"], failed["url"], "indexer")
    details = pipeline.http.get(f"/api/dead-letters/{letter['id']}").json()
    assert details["text"] == "# Tapir\n\nThe tapir swims."

    def replay(**options: Any) -> dict[str, Any]:
        response = pipeline.http.post("/api/dead-letters/replay", json={"ids": [letter["id"]], **options})
        assert response.status_code == (200 if options else 202), response.text
        answer: dict[str, Any] = response.json()
        return answer

    counts = {"replayed": 1, "superseded": 0, "without_text": 0, "without_item": 0}
    assert replay(dry_run=True) == {**counts, "dry_run": True}
    assert replay() == {**counts, "dry_run": False}
    assert replay()["replayed"] == 0
    job = pipeline.finished(failed["job_id"])
    assert (job["status"], job["failed"], job["results"][0]["status"]) == ("succeeded", 0, "indexed")
    assert letters_of(pipeline, code=failed["code"]) == []
    assert [each["id"] for each in letters_of(pipeline, code=failed["code"], replayed="true")] == [letter["id"]]


def test_the_dead_commands_list_show_replay_and_drop(pipeline: Pipeline, failed: dict[str, Any]) -> None:
    code, letter_id = failed["code"], str(failed["id"])
    [letter] = command(pipeline, "dead", "list", "--code", code, "--stage", "indexer")["dead_letters"]
    assert letter["id"] == failed["id"]
    for for_people in (pipeline.cli("dead", "list", "--code", code), pipeline.cli("dead", "show", letter_id)):
        assert for_people.returncode == 0, for_people.stderr
        assert "it [/broke]" in for_people.stdout
    assert "1 documents would be queued again" in pipeline.cli("dead", "replay", letter_id, "--dry-run").stdout
    assert command(pipeline, "dead", "replay", "--job", failed["job_id"])["replayed"] == 1
    assert pipeline.finished(failed["job_id"])["status"] == "succeeded"
    assert command(pipeline, "dead", "drop", letter_id) == {"dropped": 1, "dry_run": False}
    assert letters_of(pipeline, code=code, replayed="true") == []


def test_an_entry_that_cannot_be_read_is_a_letter_that_can_only_be_dropped(pipeline: Pipeline) -> None:
    mark = f"not a header {uuid.uuid4()}"
    with Redis.from_url(pipeline.env["WEBHOOK_REDIS_URL"]) as redis:
        redis.xadd(StageName.CHUNKER.stream(Lane.NORMAL), {"h": mark, "b": b"12345"})

    def buried() -> list[dict[str, Any]]:
        found = [letter["id"] for letter in letters_of(pipeline, code="malformed", stage="chunker")]
        details = [pipeline.http.get(f"/api/dead-letters/{letter_id}").json() for letter_id in found]
        return [letter for letter in details if letter["header"] == mark]

    [letter] = wait_for(buried, 20, "the letter of the unreadable entry")
    assert (letter["job_id"], letter["url"], letter["header_bytes"], letter["body_bytes"]) == (None, None, len(mark), 5)
    ids = {"ids": [letter["id"]]}
    assert pipeline.http.post("/api/dead-letters/replay", json=ids).json()["without_item"] == 1
    assert pipeline.http.delete("/api/dead-letters", params={"ids": letter["id"]}).json()["dropped"] == 1
    assert buried() == []
