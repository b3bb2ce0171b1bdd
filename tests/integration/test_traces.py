"""One trace from the webhook to the index, across four processes and the streams; and the job's end
told in it.
"""

import json
import re
import uuid
from collections.abc import Iterator

import jq
import pytest

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import decode_header
from shared.pipeline.stages import StageName
from tests.support.collector import CollectedSpan, Collector, running_collector
from tests.support.documented import code_blocks
from tests.support.inspection import query
from tests.support.pipeline import Pipeline, kill, pages, running_pipeline
from tests.support.stage_harness import Servers, accept_documents, entries_of, make_dispatcher
from tests.support.waiting import block_until

DOCUMENTED = "".join(code_blocks("tracing.md", "sh"))
# Not claimed any more, which would be for a minute.
POSTPONED = (
    "SELECT FROM webhook.jobs WHERE job_id = $1 AND callback_due_at < now() + interval '11 seconds'"
)
SERVICES = ["ingest", "chunker", "embedder", "indexer"]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Pipeline]:
    with running_pipeline(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
        WEBHOOK_CALLBACK_ALLOW_PRIVATE="true",
        WEBHOOK_LOG_FORMAT="json",
    ) as pipeline:
        yield pipeline


def trace_of(collector: Collector, trace_id: str) -> list[CollectedSpan]:
    return [span for span in collector.spans if span.trace_id == trace_id]


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-00f067aa0ba902b7-01"


def index(pipeline: Pipeline, callback_url: str, trace_id: str) -> str:
    """Send one document in a trace; its job."""
    answer = pipeline.http.post(
        "/api/index",
        params={"callback_url": callback_url},
        json={"url": f"https://example.com/{uuid.uuid4()}", "markdown": "The okapi listens."},
        headers={"traceparent": traceparent(trace_id)},
    )
    assert answer.status_code == 202
    return str(answer.json()["job_id"])


def stages_of(collector: Collector, job_id: str) -> list[CollectedSpan]:
    return [span for span in collector.spans if job_id in span.job_ids]


def logged(pipeline: Pipeline, trace_id: str) -> list[dict[str, str]]:
    """What the filter of docs/tracing.md finds in the logs of all services."""
    [(program, example)] = re.findall(
        r"""^jq -R '([^']+"([0-9a-f]{32})"[^']+)'$""", DOCUMENTED, re.MULTILINE
    )
    wanted = jq.compile(program.replace(example, trace_id))
    files = [
        path
        for service in SERVICES
        for path in (pipeline.data_dir / "logs").glob(f"{service}*.log")
    ]
    lines = [line for path in files for line in path.read_text().splitlines()]
    return [answer for line in lines for answer in wanted.input_value(line).all()]


def test_a_webhook_and_what_follows_from_it_is_one_trace(
    traced: Pipeline, collector: Collector
) -> None:
    crawl_id = f"crawl-{uuid.uuid4()}"
    [job_id] = traced.crawl(pages()[:1], crawl_id)
    assert traced.finished(job_id)["status"] == "succeeded"
    block_until(
        lambda: len(stages_of(collector, job_id)) == 3,
        timeout=15,
        description="the spans of all stages",
    )
    [trace_id] = {span.trace_id for span in stages_of(collector, job_id)}
    block_until(
        lambda: len(trace_of(collector, trace_id)) == len(SERVICES),
        timeout=15,
        description="the span of the request",
    )
    spans = {span.service: span for span in trace_of(collector, trace_id)}
    request, chunker, embedder, indexer = (spans[f"millstream-{service}"] for service in SERVICES)
    assert (request.name, request.parent_id) == ("POST /api/webhook/firecrawl", "")
    assert [span.parent_id for span in (chunker, embedder, indexer)] == [
        request.span_id,
        chunker.span_id,
        embedder.span_id,
    ]
    block_until(
        lambda: "Batch processing complete" in {line["event"] for line in logged(traced, trace_id)},
        timeout=15,
        description="the logs",
    )
    assert {line["job_id"] for line in logged(traced, trace_id)} <= {job_id, None}
    assert {line["service"] for line in logged(traced, trace_id)} >= set(SERVICES[1:])


def test_a_traced_request_goes_on_in_its_trace_to_the_receiver_of_the_callback(
    traced: Pipeline, collector: Collector
) -> None:
    trace_id = uuid.uuid4().hex
    job_id = index(traced, f"{collector.url}/done", trace_id)
    [(headers, body)] = block_until(
        lambda: collector.posts_to("/done"), timeout=30, description="the callback"
    )
    assert headers["traceparent"].split("-")[1] == trace_id
    assert headers["webhook-id"]
    job = json.loads(body)["job"]
    assert (job["job_id"], job["status"]) == (job_id, "succeeded")
    block_until(
        lambda: len(trace_of(collector, trace_id)) == len(SERVICES),
        timeout=15,
        description="the spans of all services",
    )


def test_a_search_is_one_trace_too(traced: Pipeline, collector: Collector) -> None:
    trace_id = uuid.uuid4().hex
    traced.http.post(
        "/api/search", json={"query": "okapi"}, headers={"traceparent": traceparent(trace_id)}
    )
    block_until(
        lambda: len(trace_of(collector, trace_id)) == 2,
        timeout=15,
        description="both services' spans",
    )
    assert {(span.service, span.name) for span in trace_of(collector, trace_id)} == {
        ("millstream-ingest", "POST /api/search"),
        ("millstream-indexer", "POST /api/search"),
    }


def test_a_callback_that_was_not_taken_is_told_by_the_next_ingest(
    traced: Pipeline, collector: Collector
) -> None:
    path = f"/{uuid.uuid4()}"
    collector.later.add(path)
    job_id = index(traced, f"{collector.url}{path}", uuid.uuid4().hex)
    block_until(
        lambda: collector.posts_to(path) and query(traced, POSTPONED, job_id),
        timeout=30,
        description="a first try, and its failure",
    )
    [victim] = traced.pids("ingest")
    kill(victim)
    before = len(collector.posts_to(path))
    collector.later.clear()
    block_until(
        lambda: len(collector.posts_to(path)) > before, timeout=90, description="another try"
    )  # a claim that died is good for 60 s
    tries = collector.posts_to(path)
    assert len({headers["webhook-id"] for headers, _ in tries}) == 1
    assert len({body for _, body in tries}) == 1


@pytest.mark.asyncio(loop_scope="session")
async def test_a_release_carries_the_trace_of_each_documents_request(servers: Servers) -> None:
    origins = [traceparent(uuid.uuid4().hex), None]
    jobs = {await accept_documents(servers, 1, traceparent=origin): origin for origin in origins}
    dispatcher = make_dispatcher(servers)
    await dispatcher.check_marker()
    assert await dispatcher.release_some() == 2
    [(_, fields)] = await entries_of(servers, StageName.CHUNKER.stream(Lane.NORMAL))
    header = decode_header(fields[b"h"])
    assert {ref.job_id: ref.traceparent or None for ref in header.documents} == jobs
