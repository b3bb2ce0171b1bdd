"""Traces: one for each request that brings a job, from there through all stages to the index.

Off unless the variables of OpenTelemetry say so; its SDK is not imported then. What is on is in
`open_telemetry.py`. A trace crosses the streams as `traceparent` (W3C) of every document.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shared.pipeline.messages import DocumentRef, Header
from shared.pipeline.outcomes import Outcome
from shared.pipeline.stages import StageName
from shared.service.errors import ConfigurationError

_PROTOCOL = "http/protobuf"


class BatchTrace:
    """The trace of one batch message in a stage."""

    def __init__(self, header: Header) -> None:
        self.header = header  # as it goes on: with the trace of this stage

    def note(self, documents: Sequence[DocumentRef], outcomes: Sequence[Outcome]) -> None:
        """Note the outcome of each document."""


class Tracing:
    """The traces of a process, while they are off."""

    middlewares: Sequence[Callable[..., Any]] = ()  # of its HTTP port, outermost

    def traceparent(self) -> str | None:
        """The trace that the caller's task is in."""
        return None

    @contextlib.contextmanager
    def batch(self, stage: StageName, entry_id: str, header: Header) -> Iterator[BatchTrace]:
        """Trace a batch message in a stage, in the trace of each job that it has documents of."""
        yield BatchTrace(header)

    async def close(self) -> None:
        """Send the spans that are not sent yet."""


OFF = Tracing()


def is_on(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces.

    Raises ConfigurationError for what cannot be done.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_wanted = exporter == "otlp" or any(environ.get(name) for name in endpoints)
    if (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or exporter == "none"
        or not is_wanted
    ):
        return False
    if exporter not in {"", "otlp"}:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER is {exporter}: only otlp and none are known"
        )
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(name):
            if protocol == _PROTOCOL:
                break
            raise ConfigurationError(
                f"{name} is {protocol}: only {_PROTOCOL} is spoken, usually on port 4318"
            )
    return True
