"""Times and counts of a running pipeline: over the API, by the SQL and jq of the documentation, and
in the metrics.
"""

import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import jq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.documented import code_blocks, rows
from tests.support.inspection import query
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until

ANSWER_AND_FILTER = re.compile(
    r"""^api "\$MILLSTREAM_URL(/[^"]+)"(?: \\\n *| )\| jq (-r )?'([^']+)'$""", re.MULTILINE
)
SERVICES = ("ingest", "chunker", "embedder", "indexer")
STATEMENTS = {
    block.splitlines()[0].removeprefix("-- "): block
    for block in code_blocks("operations.md", "sql")
}


@pytest.fixture(scope="module")
def job(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """A job of three documents, one of which has no text."""
    urls = [f"https://example.com/{uuid.uuid4()}" for _ in range(3)]
    texts = ["# Heron\n\nThe heron waits.", "# Otter\n\nThe otter dives.", "\x01\x02"]
    job_id = pipeline.index(
        [{"url": url, "markdown": text} for url, text in zip(urls, texts, strict=True)]
    )
    finished = pipeline.finished(job_id)
    assert (finished["succeeded"], finished["failed"]) == (2, 1), finished
    finished["urls"] = urls
    # Written by several processes, each in its own time.
    rows = (
        "SELECT 1 FROM webhook.operation_metrics WHERE job_id = $1 "
        "AND operation_type IN ('batch_processing', 'document_indexing')"
    )
    block_until(
        lambda: len(query(pipeline, rows, job_id)) == 4,
        timeout=30,
        description="the rows of the job and its documents",
    )
    yield finished
    pipeline.http.delete("/api/dead-letters", params={"job_id": job_id})


def operations(pipeline: Pipeline, **params: Any) -> dict[str, Any]:
    response = pipeline.http.get("/api/metrics/operations", params=params)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_operations_of_a_document_are_counted_by_type(
    pipeline: Pipeline, job: dict[str, Any]
) -> None:
    found = operations(pipeline, document_url=job["urls"][0], hours="0.5")
    assert set(found["operations_by_type"]) == {"chunking", "document_indexing"}
    totals = found["operations_by_type"]["document_indexing"]
    assert (
        totals["total"],
        totals["success_count"],
        totals["failure_count"],
        totals["success_rate"],
    ) == (1, 1, 0, 1.0)
    duration = job["results"][0]["duration_ms"]
    for name in ("avg", "min", "max", "p95"):
        assert totals[f"{name}_duration_ms"] == pytest.approx(duration, abs=1.0)
    newest = found["operations"][0]
    assert (newest["operation_type"], newest["job_id"], newest["success"]) == (
        "document_indexing",
        job["job_id"],
        True,
    )


def test_failures_can_be_asked_for_alone(pipeline: Pipeline, job: dict[str, Any]) -> None:
    url = job["urls"][2]
    found = operations(
        pipeline, document_url=url, success="false", operation_type="document_indexing", limit=5
    )
    assert [(row["document_url"], row["error_message"]) for row in found["operations"]] == [
        (url, job["results"][2]["error"])
    ]
    assert operations(pipeline, document_url=url, success="true") == {
        "operations_by_type": {},
        "operations": [],
    }
    assert operations(pipeline, limit=0)["operations"] == []


@pytest.mark.parametrize(
    "params",
    [{"hours": "0"}, {"hours": "many"}, {"hours": "nan"}, {"success": "yes"}, {"limit": "-1"}],
)
def test_a_bad_parameter_is_named(pipeline: Pipeline, params: dict[str, str]) -> None:
    response = pipeline.http.get("/api/metrics/operations", params=params)
    assert response.status_code == 422
    assert next(iter(params)) in response.json()["detail"]


def test_the_documented_filters_of_operations_work(pipeline: Pipeline, job: dict[str, Any]) -> None:
    page = "\n".join(code_blocks("operations.md", "sh"))
    asked = ANSWER_AND_FILTER.findall(page)
    assert len(asked) == page.count("| jq ") == 4
    answers = [
        jq.compile(program).input_value(pipeline.http.get(path).json()).all()
        for path, _, program in asked
    ]
    average, counts, by_type, failures = answers
    assert average[0] > 0
    assert counts[0]["total"] == counts[0]["success_count"] + counts[0]["failure_count"] >= 3
    assert by_type[0]["embedding"] > 0
    assert any(job["urls"][2] in line for line in failures)


@pytest.mark.parametrize("title", STATEMENTS)
def test_a_documented_statement_runs(pipeline: Pipeline, job: dict[str, Any], title: str) -> None:
    assert query(pipeline, STATEMENTS[title])


def test_documents_of_a_job_are_told_by_the_documented_statement(
    pipeline: Pipeline, job: dict[str, Any]
) -> None:
    rows = query(
        pipeline,
        STATEMENTS["Documents of each job, with how many succeeded; the latest jobs first"],
    )
    [row] = [row for row in rows if str(row["job_id"]) == job["job_id"]]
    assert (row["documents"], row["succeeded"], row["failed"]) == (3, 2, 1)


def families(pipeline: Pipeline, service: str) -> dict[str, list[Any]]:
    """The samples of each metric that a service's first process knows, by the name in
    docs/metrics.md.
    """
    [url, *_] = [row["url"] for row in pipeline.processes if row["service"] == service]
    found = text_string_to_metric_families(pipeline.http.get(f"{url}/metrics").text)
    return {
        f"{each.name}_total" if each.type == "counter" else each.name: each.samples
        for each in found
        if not each.name.endswith("_created")
    }


def samples(pipeline: Pipeline, service: str) -> dict[str, list[Any]]:
    """All samples of a service's first process, by name."""
    found: dict[str, list[Any]] = {}
    for sample in itertools.chain(*families(pipeline, service).values()):
        found.setdefault(sample.name, []).append(sample)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_shows_the_metrics_that_are_documented_for_it(
    pipeline: Pipeline, job: dict[str, Any], service: str
) -> None:
    words = {service, "all"} if service == "ingest" else {service, "all", "stages"}
    documented = {
        row[0].strip("`") for row in rows("metrics.md", 6) if words & set(row[4].split(", "))
    }
    known = families(pipeline, service)
    assert documented <= set(known)
    assert {name for name, shown in known.items() if shown} <= documented


def test_what_never_happened_is_counted_as_0(pipeline: Pipeline) -> None:
    found = samples(pipeline, "chunker")
    assert [s.labels for s in found["millstream_redeliveries_total"]] == [{"stage": "chunker"}]
    outcomes = {s.labels["outcome"] for s in found["millstream_documents_total"]}
    assert outcomes == {"emit", "done", "retry", "dead"}


def test_every_service_measures_its_event_loop(pipeline: Pipeline) -> None:
    for service in SERVICES:
        assert samples(pipeline, service)["millstream_event_loop_lag_seconds_count"][0].value > 0


def test_ingest_shows_the_streams_and_what_waits(pipeline: Pipeline, job: dict[str, Any]) -> None:
    block_until(
        lambda: "millstream_stream_entries" in samples(pipeline, "ingest"),
        timeout=10,
        description="the first look at the streams",
    )
    found = samples(pipeline, "ingest")
    lanes = {(s.labels["stage"], s.labels["lane"]) for s in found["millstream_stream_entries"]}
    assert lanes == {
        (stage, lane)
        for stage in ("chunker", "embedder", "indexer")
        for lane in ("high", "normal", "low")
    }
    # Replicas of a stage that was just restarted have not read yet.
    assert block_until(
        lambda: (
            {s.value >= 2 for s in samples(pipeline, "ingest")["millstream_stream_consumers"]}
            == {True}
        ),
        timeout=10,
        description="both replicas of every stage",
    )
    assert {s.labels["lane"] for s in found["millstream_backlog_documents"]} == {
        "high",
        "normal",
        "low",
    }
    assert block_until(
        lambda: samples(pipeline, "ingest")["millstream_dead_letters"][0].value >= 1,
        timeout=10,
        description="a dead letter",
    )


def test_stages_show_the_times_of_batches_documents_and_requests(
    pipeline: Pipeline, job: dict[str, Any]
) -> None:
    pipeline.index(
        [
            {"url": f"https://example.com/{uuid.uuid4()}", "markdown": f"# Page {n}"}
            for n in range(40)
        ]
    )

    def operations_of_indexer() -> Any:
        found = samples(pipeline, "indexer").get("millstream_request_seconds_count", [])
        seen = {
            s.labels["operation"] for s in found if s.labels["service"] == "qdrant" and s.value > 0
        }
        return {"upsert", "delete"} <= seen

    block_until(
        operations_of_indexer, timeout=30, description="requests to Qdrant that are measured"
    )
    names = [
        f"millstream_{name}_seconds_count" for name in ("batch", "document", "indexing", "waiting")
    ]

    def are_all_measured() -> bool:
        found = samples(pipeline, "indexer")
        return all(name in found and found[name][0].value > 0 for name in names)

    block_until(are_all_measured, timeout=30, description="times of batches and documents")
