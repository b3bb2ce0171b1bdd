"""An HTTP server in a thread that keeps what is posted to it: traces by OTLP, and callbacks."""

import contextlib
import http.server
import threading
from collections.abc import Iterator

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACES_PATH = "/v1/traces"


class CollectedSpan(msgspec.Struct, frozen=True):
    """What a test wants to know of a span."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str  # empty for a root
    job_ids: list[str]  # of a stage's


class Collector(http.server.ThreadingHTTPServer):
    """Answers 200 to every POST, but 503 to those that are told to come later."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.later: set[str] = set()  # paths
        self.posts: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, body

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def posts_to(self, wanted: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and body of each POST to a path."""
        return [(headers, body) for path, headers, body in list(self.posts) if path == wanted]

    @property
    def spans(self) -> list[CollectedSpan]:
        """All spans that have come."""
        return [span for _, body in self.posts_to(TRACES_PATH) for span in _decode(body)]


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, dict(self.headers), body))
        self.send_response(503 if self.path in self.server.later else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def _decode(body: bytes) -> Iterator[CollectedSpan]:
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        attributes = {
            each.key: each.value.string_value for each in resource_spans.resource.attributes
        }
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                lists = {each.key: each.value.array_value.values for each in span.attributes}
                yield CollectedSpan(
                    attributes["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [each.string_value for each in lists.get("millstream.job_ids", ())],
                )  # fmt: skip
