"""Every Prometheus metric, in one place; docs/metrics.md lists them.

One instance per process, on its own registry.
"""

import functools
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCH_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_WAITING_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SEARCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SAVES = {"chunker": "unchanged", "embedder": "cache"}  # why a stage saves requests to TEI
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one process.

    Labels are bounded: stage, lane, outcome, reason - never an id.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_times(self.registry)
        self._add_counts(self.registry)
        self._add_http_counts(self.registry)

    def _add_times(self, registry: CollectorRegistry) -> None:
        self.batch_seconds = _histogram(
            registry,
            "batch_seconds",
            "Time of one batch message in a stage.",
            _BATCH_SECONDS,
            "stage",
        )
        self.document_seconds = _histogram(
            registry, "document_seconds", "Time of the batch message of one document in a stage.",
            _BATCH_SECONDS, "stage",
        )  # fmt: skip
        self.indexing_seconds = _histogram(
            registry,
            "indexing_seconds",
            "Time of one document from the chunker's start to its end.",
            _BATCH_SECONDS,
        )
        self.waiting_seconds = _histogram(
            registry,
            "waiting_seconds",
            "Time of one document from its acceptance to the chunker's start.",
            _WAITING_SECONDS,
        )
        self.request_seconds = _histogram(
            registry, "request_seconds", "Time of one request to a dependency.", _REQUEST_SECONDS,
            "service", "operation",
        )  # fmt: skip
        self.event_loop_lag = _histogram(
            registry,
            "event_loop_lag_seconds",
            "Delay of a timer in the event loop of the process.",
            _LAG_SECONDS,
        )

    def _add_counts(self, registry: CollectorRegistry) -> None:
        self.documents = _counter(
            registry,
            "documents_total",
            "Documents that left a stage, by outcome.",
            "stage",
            "outcome",
        )
        self.in_flight = _gauge(
            registry, "in_flight_batches", "Batch messages in flight in this process.", "stage"
        )
        self.redeliveries = _counter(
            registry, "redeliveries_total", "Entries that were delivered more than once.", "stage"
        )
        self.refused_handovers = _counter(
            registry,
            "refused_handovers_total",
            "Hand-overs refused because the lease was lost.",
            "stage",
        )
        self.open_breakers = _gauge(
            registry,
            "open_breakers",
            "1 while the dependency is unavailable and the stage reads nothing.",
            "dependency",
        )
        self.accepted = _counter(
            registry, "accepted_documents_total", "Documents accepted by ingest.", "lane"
        )
        self.released = _counter(
            registry, "released_documents_total", "Documents released to the streams.", "lane"
        )
        self.callbacks = _counter(
            registry,
            "callbacks_total",
            "Completion webhooks that were sent, by outcome of the attempt.",
            "outcome",
        )

    def _add_http_counts(self, registry: CollectorRegistry) -> None:
        self.http_requests = _counter(
            registry,
            "http_requests_total",
            "Requests to the HTTP port, by route and status.",
            "route",
            "status",
        )
        self.closed_connections = _counter(
            registry,
            "closed_connections_total",
            "Connections that the HTTP port closed or refused.",
            "reason",
        )

    # A process exposes only what it measures: a group is registered at its first use.

    @functools.cached_property
    def tei(self) -> "TeiMetrics":
        return TeiMetrics(self.registry)

    @functools.cached_property
    def search(self) -> "SearchMetrics":
        return SearchMetrics(self.registry)

    @functools.cached_property
    def scrubber(self) -> "ScrubberMetrics":
        return ScrubberMetrics(self.registry)

    @functools.cached_property
    def pipeline(self) -> "PipelineGauges":
        return PipelineGauges(self.registry)

    def begin_stage(self, stage: str) -> None:
        """Start the counters of a stage at 0.

        Prometheus sees no increase in a series that starts at 1.
        """
        self.redeliveries.labels(stage)
        for outcome in ("emit", "done", "retry", "dead"):
            self.documents.labels(stage, outcome)
        if stage in _SAVES:
            self.tei.inputs_saved.labels(_SAVES[stage])

    def request_observer(self, service: str) -> Callable[[str, float], None]:
        """Return a function that records an operation and its seconds as a request to `service`."""
        return lambda operation, seconds: self.request_seconds.labels(service, operation).observe(
            seconds
        )

    def render(self) -> bytes:
        """Return all metrics in the exposition format."""
        return generate_latest(self.registry)


class TeiMetrics:
    """Requests to TEI: what is sent, what may be sent, and what was saved."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.input_limit = _gauge(
            registry,
            "tei_input_limit",
            "Current limit of inputs in flight to a TEI server.",
            "server",
        )
        self.inputs_in_flight = _gauge(
            registry,
            "tei_inputs_in_flight",
            "Inputs that are in flight from this process to a TEI server.",
            "server",
        )
        self.inputs = _counter(
            registry, "tei_inputs_total", "Inputs that were sent to TEI, by outcome.", "outcome"
        )
        self.cache_lookups = _counter(
            registry,
            "embedding_cache_lookups_total",
            "Texts looked up in the embedding cache, by outcome.",
            "outcome",
        )
        self.inputs_saved = _counter(
            registry, "tei_inputs_saved_total", "Chunks that were not sent to TEI.", "reason"
        )


class SearchMetrics:
    """Times of searches and of their parts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = _histogram(
            registry,
            "search_seconds",
            "Time of one search: in total, or of one part.",
            _SEARCH_SECONDS,
            "part",
        )

    def observe(self, part: str, seconds: float) -> None:
        """Record one part of a search, or `total`."""
        self._seconds.labels(part).observe(seconds)


class ScrubberMetrics:
    """Passes of the scrubber, and points it deleted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.passes = _counter(
            registry, "scrubs_total", "Passes over a collection to find points left behind."
        )
        self.points = _counter(
            registry,
            "scrubbed_points_total",
            "Points of obsolete versions that these passes deleted.",
        )


class PipelineGauges:
    """The whole pipeline, sampled by ingest: all stages and lanes, whatever process serves them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stream_depth = _gauge(
            registry,
            "stream_entries",
            "Batch messages in a stream, waiting and pending.",
            "stage",
            "lane",
        )
        self.stream_pending = _gauge(
            registry,
            "stream_pending_entries",
            "Batch messages that consumers hold.",
            "stage",
            "lane",
        )
        self.stream_oldest_pending = _gauge(
            registry,
            "stream_oldest_pending_seconds",
            "Longest time since a pending batch message was delivered or its lease renewed.",
            "stage",
            "lane",
        )
        self.stream_consumers = _gauge(
            registry, "stream_consumers", "Consumers in the group of a stream.", "stage", "lane"
        )
        self.backlog = _gauge(
            registry,
            "backlog_documents",
            "Documents that wait in Postgres, counted up to 100,000 a lane.",
            "lane",
        )
        self.due = _gauge(
            registry,
            "due_documents",
            "Documents of the backlog that may be released now: they wait for no retry.",
            "lane",
        )
        self.dead_letters = _gauge(
            registry,
            "dead_letters",
            "Dead letters that were neither replayed nor dropped, counted up to 100,000.",
        )


def _counter(registry: CollectorRegistry, name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"millstream_{name}", meaning, labels, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(f"millstream_{name}", meaning, labels, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, meaning: str, buckets: Sequence[float], *labels: str
) -> Histogram:
    return Histogram(f"millstream_{name}", meaning, labels, registry=registry, buckets=buckets)
