"""What the embedded server counts, under TEI's names (with prometheus-client's `_total`), and its
permits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from local.tei.contract import ErrorType, TeiError

METHODS = ("single", "batch")
ERRORS = tuple(error_type.lower() for error_type in ErrorType)


class Counters:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("te_request_count", "Requests to /embed", method=METHODS)
        self.successes = self._counter(
            "te_request_success", "Requests answered with vectors", method=METHODS
        )
        self.failures = self._counter(
            "te_request_failure", "Requests answered with an error", err=ERRORS
        )
        self.inputs = self._counter("te_embed_count", "Inputs that got a permit")
        self.embedded = self._counter("te_embed_success", "Inputs answered with a vector")
        self.tokens = self._counter(
            "te_embed_tokens", "Tokens of the inputs answered with a vector"
        )
        self.in_flight = Gauge("te_queue_size", "Inputs that hold a permit", registry=self.registry)

    def _counter(self, name: str, documentation: str, **labels: tuple[str, ...]) -> Counter:
        counter = Counter(name, documentation, list(labels), registry=self.registry)
        # Every series is there from the start: zero is an answer too.
        for values in labels.values():
            for value in values:
                counter.labels(value)
        return counter


class Permits:
    """One permit for each input in flight; taken all or none, without waiting (TEI 1.9)."""

    def __init__(self, total: int, counters: Counters) -> None:
        self._free = total
        self._counters = counters

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold `count` permits; raises TeiError (Overloaded) at once if fewer are free."""
        if count > self._free:
            raise TeiError(ErrorType.OVERLOADED, "Model is overloaded")
        self._free -= count
        self._counters.inputs.inc(count)
        self._counters.in_flight.inc(count)
        try:
            yield
        finally:
            self._free += count
            self._counters.in_flight.dec(count)
