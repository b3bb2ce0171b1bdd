"""Every Prometheus metric, in one place; docs/metrics.md lists them. One instance per process, on its own registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCH_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one process. Labels are bounded: stage, lane, outcome, reason - never an id."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batch_seconds = Histogram(
            "millstream_batch_seconds", "Time of one batch message in a stage.", ["stage"],
            registry=self.registry, buckets=_BATCH_SECONDS,
        )  # fmt: skip
        self.documents = Counter(
            "millstream_documents_total", "Documents that left a stage, by outcome.", ["stage", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "millstream_in_flight_batches",
            "Batch messages in work in this process.",
            ["stage"],
            registry=self.registry,
        )
        self.redeliveries = Counter(
            "millstream_redeliveries_total", "Entries that were delivered more than once.", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        self.refused_handovers = Counter(
            "millstream_refused_handovers_total", "Hand-overs refused because the lease was lost.", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        self.open_breakers = Gauge(
            "millstream_open_breakers", "1 while the dependency is away and the stage reads nothing.", ["dependency"],
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "millstream_request_seconds", "Time of one request to a dependency.", ["service", "operation"],
            registry=self.registry, buckets=_REQUEST_SECONDS,
        )  # fmt: skip
        self.accepted = Counter(
            "millstream_accepted_documents_total",
            "Documents accepted by ingest.",
            ["lane"],
            registry=self.registry,
        )
        self.released = Counter(
            "millstream_released_documents_total", "Documents released to the streams.", ["lane"],
            registry=self.registry,
        )  # fmt: skip

    def render(self) -> bytes:
        """The exposition text of all metrics."""
        return generate_latest(self.registry)
