"""When there are traces, and what they look like: of requests, of batch messages of one job and of
several.
"""

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import msgspec
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec import UNSET
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, Header
from shared.pipeline.open_telemetry import OpenTelemetry
from shared.pipeline.outcomes import Dead, Done, ItemState, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.pipeline.tracing import OFF, is_on
from shared.runtime.process import open_tracing
from shared.service.errors import ConfigurationError
from shared.service.http import ProblemError, problem_middleware
from shared.service.telemetry import configure_logging

ENDPOINT = "http://127.0.0.1:4318"
TRACES = ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"]
REQUESTS = [f"00-{trace}-00f067aa0ba902b{n}-01" for n, trace in enumerate(TRACES)]
CHUNKER = StageName.CHUNKER


class Traced:
    """Traces that are kept in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = OpenTelemetry(provider)

    @property
    def spans(self) -> dict[str, list[ReadableSpan]]:
        """The spans that have ended, by name."""
        found: dict[str, list[ReadableSpan]] = {}
        for span in self._exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


class Hanging(SpanProcessor):
    """Its end waits for `release`."""

    def __init__(self, release: threading.Event) -> None:
        self.is_asked = threading.Event()
        self.is_ended = False
        self._release = release

    def shutdown(self) -> None:
        self.is_asked.set()
        self._release.wait(30)
        self.is_ended = True


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    configure_logging(service="chunker", instance="i", level="info", log_format="json", out=lines)
    yield lines
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def ref(job: int, position: int = 0, *, is_traced: bool = True) -> DocumentRef:
    return DocumentRef(
        job_id=f"job-{job}",
        position=position,
        release=1,
        document_id=f"d-{job}-{position}",
        version=1,
        url=f"https://example.com/{job}/{position}",
        traceparent=REQUESTS[job] if is_traced else UNSET,
    )


def header_of(*refs: DocumentRef) -> Header:
    return Header(target="docs_1", lane=Lane.NORMAL, documents=refs)


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return format_trace_id(context.trace_id)


def parent_of(span: ReadableSpan) -> str | None:
    return format_span_id(span.parent.span_id) if span.parent is not None else None


def linked(span: ReadableSpan) -> list[str]:
    return [format_trace_id(link.context.trace_id) for link in span.links]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_SERVICE_NAME": "millstream"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{ENDPOINT}/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            True,
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            True,
        ),
    ],
)
def test_the_variables_of_opentelemetry_say_whether_there_are_traces(
    environ: dict[str, str], expected: bool
) -> None:
    assert is_on(environ) is expected


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")]
)
def test_what_is_not_spoken_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is {value}"):
        is_on({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, name: value})


def test_no_service_imports_the_trace_sdk_while_traces_are_off() -> None:
    program = (
        "import sys, ingest.__main__, chunker.__main__, embedder.__main__, indexer.__main__\n"
        "from shared.runtime.process import OFF, open_tracing\n"
        "assert open_tracing('ingest', 'i', {}) is OFF\n"
        "heavy = ('opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_without_traces_a_batch_message_goes_on_as_it_came() -> None:
    header = header_of(ref(0), ref(1))
    with open_tracing("chunker", "i", {}).batch(CHUNKER, "1-0", header) as trace:
        assert trace.header is header
    assert OFF.traceparent() is None


def test_a_batch_message_of_one_job_goes_on_in_its_trace_stage_by_stage(traced: Traced) -> None:
    header = header_of(ref(0), ref(0, 1))
    for stage in StageName:
        with traced.tracing.batch(stage, "1-0", header) as trace:
            header = trace.header
    [chunker], [embedder], [indexer] = (traced.spans[stage] for stage in StageName)
    assert {trace_of(span) for span in (chunker, embedder, indexer)} == {TRACES[0]}
    assert parent_of(chunker) == "00f067aa0ba902b0"
    assert [parent_of(span) for span in (embedder, indexer)] == [
        format_span_id(span.context.span_id) for span in (chunker, embedder) if span.context
    ]
    assert chunker.attributes is not None
    assert chunker.attributes["messaging.batch.message_count"] == 2


def test_a_batch_message_of_several_jobs_has_a_span_in_each_trace_linked_with_that_of_the_batch(
    traced: Traced,
) -> None:
    header = header_of(ref(0), ref(1), ref(1, 1))
    for stage in (StageName.CHUNKER, StageName.EMBEDDER):
        with traced.tracing.batch(stage, "1-0", header) as trace:
            header = trace.header
    [chunk], [embed] = traced.spans["chunker batch"], traced.spans["embedder batch"]
    assert linked(chunk) == linked(embed) == TRACES
    assert trace_of(chunk) == trace_of(embed)  # which is none of the jobs'
    for name, whole in (("chunker", chunk), ("embedder", embed)):
        parts = traced.spans[name]
        assert sorted(map(trace_of, parts)) == sorted(TRACES)
        assert [linked(part) for part in parts] == [[trace_of(whole)]] * 2
        assert {parent_of(part) for part in parts} == {"00f067aa0ba902b0", "00f067aa0ba902b1"}
    counts = [
        part.attributes["messaging.batch.message_count"]
        for part in traced.spans["chunker"]
        if part.attributes
    ]
    assert sorted(map(int, map(str, counts))) == [1, 2]


def test_a_batch_message_that_nobody_traced_begins_a_trace(traced: Traced) -> None:
    with traced.tracing.batch(CHUNKER, "1-0", header_of(ref(0, is_traced=False))):
        pass
    [span] = traced.spans["chunker"]
    assert span.parent is None


def test_what_is_no_trace_stops_no_document(traced: Traced) -> None:
    broken = msgspec.structs.replace(ref(0), traceparent="broken")
    with traced.tracing.batch(CHUNKER, "1-0", header_of(broken, ref(1))) as trace:
        trace.note([broken], [Dead("too_long", "it is too long")])
    assert TRACES[1] in map(trace_of, traced.spans["chunker"])


def test_a_document_that_fails_marks_its_own_trace_and_no_other(traced: Traced) -> None:
    refs = [ref(0), ref(1)]
    outcomes: list[Outcome] = [Dead("too_long", "it is too long"), Done(ItemState.UNCHANGED)]
    with traced.tracing.batch(CHUNKER, "1-0", header_of(*refs)) as trace:
        trace.note(refs, outcomes)
    status = {trace_of(span): span.status.status_code for span in traced.spans["chunker"]}
    assert status == {TRACES[0]: StatusCode.ERROR, TRACES[1]: StatusCode.UNSET}


def test_a_document_that_is_tried_again_says_why(traced: Traced) -> None:
    with traced.tracing.batch(CHUNKER, "1-0", header_of(ref(0))) as trace:
        trace.note([ref(0)], [Retry("tei: away", 2.0, attempts=0)])
    [event] = traced.spans["chunker"][0].events
    assert event.attributes is not None
    assert (event.name, event.attributes["reason"], event.attributes["delay_s"]) == (
        "retry",
        "tei: away",
        2.0,
    )


def test_an_error_ends_every_span_of_the_batch(traced: Traced) -> None:
    with (
        pytest.raises(ValueError, match="bug"),
        traced.tracing.batch(CHUNKER, "1-0", header_of(ref(0), ref(1))),
    ):
        raise ValueError("bug")
    assert traced.spans["chunker batch"][0].status.status_code is StatusCode.ERROR
    assert len(traced.spans["chunker"]) == 2


def test_log_lines_have_the_trace_of_their_job_or_else_of_the_batch(
    traced: Traced, log_lines: io.StringIO
) -> None:
    log = structlog.get_logger()
    with traced.tracing.batch(CHUNKER, "1-0", header_of(ref(0), ref(1))):
        log.info("a job's", job_id="job-1")
        log.info("the batch's")
    log.info("nobody's")
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines()]
    batch = trace_of(traced.spans["chunker batch"][0])
    assert [line.get("trace_id") for line in lines] == [TRACES[1], batch, None]
    assert not any("trace_ids" in line for line in lines)


async def test_a_collector_that_hangs_does_not_hold_the_end_up() -> None:
    release = threading.Event()
    hanging = Hanging(release)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(hanging)
    try:
        await OpenTelemetry(provider, patience=0.05).close()
        assert hanging.is_asked.wait(10)
        assert not hanging.is_ended
    finally:
        release.set()


async def test_a_request_goes_on_in_its_senders_trace_and_says_how_it_ended(traced: Traced) -> None:
    seen: list[str | None] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(traced.tracing.traceparent())
        if request.match_info["name"] == "bad":
            raise ProblemError(503, "Service Unavailable")
        return web.Response(status=202)

    app = web.Application(middlewares=[*traced.tracing.middlewares, problem_middleware])
    app.router.add_route("*", "/api/{name}", take)
    app.router.add_post("/health", take)
    async with TestClient(TestServer(app)) as client:
        await client.post("/api/good", headers={"traceparent": REQUESTS[0]})
        await client.post("/api/bad")
        await client.get("/api/good")
        await client.post("/api/nothing/here")
    good, bad = traced.spans["POST /api/{name}"]
    assert (trace_of(good), parent_of(good)) == (TRACES[0], "00f067aa0ba902b0")
    assert seen[0] is not None
    assert seen[0].split("-")[1] == TRACES[0]
    assert bad.parent is None
    assert (good.status.status_code, bad.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert seen[2] is None  # looking is not traced
    assert [
        span.attributes["http.response.status_code"]
        for span in traced.spans["POST"]
        if span.attributes
    ] == [404]
