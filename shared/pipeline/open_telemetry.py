"""Traces by OpenTelemetry, sent by OTLP over HTTP. Imported only if they are on (tracing.py)."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

from shared.pipeline.messages import DocumentRef, Header
from shared.pipeline.outcomes import Dead, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.pipeline.tracing import BatchTrace, Tracing

_PATIENCE = 2.0  # an unavailable collector must not delay the end of the process
_MOST_LISTED = 32  # jobs, and urls, on one span

_propagator = TraceContextTextMapPropagator()


def exporting_provider(service: str, instance: str, environ: Mapping[str, str]) -> TracerProvider:
    """Spans of this process, sent to the collector.

    OpenTelemetry reads its variables, sampling too, by itself.
    """
    attributes = {"service.version": version("millstream"), "service.instance.id": instance}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = f"millstream-{service}"
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class OpenTelemetry(Tracing):
    """The traces of a process."""

    def __init__(self, provider: TracerProvider, *, patience: float = _PATIENCE) -> None:
        """`patience`: seconds that the last spans may take."""
        self._provider = provider
        self._patience = patience
        self._tracer = provider.get_tracer("millstream")
        self.middlewares = [self._request_middleware()]

    def traceparent(self) -> str | None:
        return traceparent_of(trace.get_current_span())

    @contextlib.contextmanager
    def batch(self, stage: StageName, entry_id: str, header: Header) -> Iterator[BatchTrace]:
        """One span for all, in the trace of its documents if that is one.

        Of several traces each gets a span of its own, and they and that of the batch are linked.
        """
        origins = list(
            dict.fromkeys(ref.traceparent for ref in header.documents if ref.traceparent)
        )
        parent = header.traceparent or (origins[0] if len(origins) == 1 else None)
        elsewhere = [
            origin
            for origin in origins
            if _span_context(origin).trace_id != _span_context(parent).trace_id
        ]
        with self._tracer.start_as_current_span(
            f"{stage} batch" if elsewhere else str(stage),
            context=_context_of(parent),
            kind=SpanKind.CONSUMER,
            attributes=_attributes(header.documents, entry_id, header),
            links=[Link(_span_context(origin)) for origin in elsewhere],
        ) as whole:
            parts = {
                origin: self._part(stage, entry_id, header, origin, whole) for origin in elsewhere
            }
            try:
                with bound_contextvars(**_log_fields(header.documents, whole, parts)):
                    yield _OpenBatch(
                        msgspec.structs.replace(header, traceparent=traceparent_of(whole)),
                        whole,
                        parts,
                    )
            finally:
                for span in parts.values():
                    span.end()

    async def close(self) -> None:
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended, too
                loop.call_soon_threadsafe(sent.set)

        # Not in one of the loop's threads: those are waited for at the end, and a collector may
        # hang.
        threading.Thread(target=send, name="last spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await sent.wait()

    def _part(
        self, stage: StageName, entry_id: str, header: Header, origin: str, whole: Span
    ) -> Span:
        documents = [ref for ref in header.documents if ref.traceparent == origin]
        return self._tracer.start_span(
            str(stage),
            context=_context_of(origin),
            kind=SpanKind.CONSUMER,
            links=[Link(whole.get_span_context())],
            attributes=_attributes(documents, entry_id, header),
        )

    def _request_middleware(self) -> Any:
        @web.middleware
        async def traced(request: web.Request, handler: Any) -> web.StreamResponse:
            # Watching is not worth a trace.
            if request.method == "GET" or not request.path.startswith("/api/"):
                answer: web.StreamResponse = await handler(request)
                return answer
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else ""
            with (
                self._tracer.start_as_current_span(
                    f"{request.method} {route}".strip(),
                    context=_propagator.extract(request.headers),
                    kind=SpanKind.SERVER,
                    attributes={
                        "http.request.method": request.method,
                        "http.route": route,
                        "url.path": request.path,
                    },
                ) as span,
                bound_contextvars(trace_id=_id_of(span)),
            ):
                answer = await handler(request)
                span.set_attribute("http.response.status_code", answer.status)
                span.set_attribute("millstream.request_id", answer.headers.get("X-Request-ID", ""))
                if answer.status >= 500:
                    span.set_status(StatusCode.ERROR)
                return answer

        return traced


class _OpenBatch(BatchTrace):
    """A batch message that is traced: by the span of the whole, and for each other trace by a span
    there.
    """

    def __init__(self, header: Header, whole: Span, parts: Mapping[str, Span]) -> None:
        super().__init__(header)
        self._whole = whole
        self._parts = parts

    def note(self, documents: Sequence[DocumentRef], outcomes: Sequence[Outcome]) -> None:
        for ref, outcome in zip(documents, outcomes, strict=True):
            span = self._parts.get(ref.traceparent or "", self._whole)
            about = {"url.full": ref.url, "millstream.job_id": ref.job_id}
            if isinstance(outcome, Dead):
                span.set_status(StatusCode.ERROR, outcome.code)
                span.add_event(
                    "dead letter", {**about, "code": outcome.code, "error": outcome.error}
                )
            elif isinstance(outcome, Retry):
                span.add_event(
                    "retry", {**about, "reason": outcome.reason, "delay_s": outcome.delay}
                )


def traceparent_of(span: Span) -> str | None:
    """Return the span as a W3C traceparent; None if the span is invalid."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def _context_of(traceparent: str | None) -> Context:
    return _propagator.extract({"traceparent": traceparent} if traceparent else {})


def _span_context(traceparent: str | None) -> SpanContext:
    """Return the context of a traceparent; an invalid one for None and for an invalid text."""
    return trace.get_current_span(_context_of(traceparent)).get_span_context()


def _id_of(span: Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


def _attributes(documents: Sequence[DocumentRef], entry_id: str, header: Header) -> dict[str, Any]:
    return {
        "messaging.system": "redis_streams",
        "messaging.message.id": entry_id,
        "messaging.batch.message_count": len(documents),
        "millstream.lane": str(header.lane),
        "millstream.target": header.target,
        "millstream.job_ids": list(dict.fromkeys(ref.job_id for ref in documents))[:_MOST_LISTED],
        "millstream.urls": [ref.url for ref in documents[:_MOST_LISTED]],
    }


def _log_fields(
    documents: Sequence[DocumentRef], whole: Span, parts: Mapping[str, Span]
) -> dict[str, Any]:
    """The trace of the batch, and of its jobs those that are in others
    (shared/service/telemetry.py).
    """
    origins = ((ref.job_id, ref.traceparent or "") for ref in documents)
    by_job = {job_id: _id_of(parts[origin]) for job_id, origin in origins if origin in parts}
    return {"trace_id": _id_of(whole), **({"trace_ids": by_job} if by_job else {})}
