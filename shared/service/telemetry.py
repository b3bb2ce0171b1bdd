"""Structured logs: JSON on stdout, or `10:30:00 | event | key=value` for a person at a terminal.

Event texts are fixed and values are fields; docs/logging.md lists every event.
"""

import logging
import re
import sys
from typing import Any, TextIO

import msgspec
import stamina
import structlog
from structlog.typing import EventDict, WrappedLogger

log = structlog.get_logger()

_RETRIES_PER_LINE = 15
# A value that a sender chose must neither look like another line nor control the terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSHOWN = frozenset({"service", "instance"})  # a terminal shows one process


def configure_logging(
    *, service: str, instance: str, level: str, log_format: str, out: TextIO | None = None
) -> None:
    """Set up structlog for this process; call once, in `main()`."""
    render = _console if log_format == "console" else _json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name_own_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=out or sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, instance=instance)
    stamina.instrumentation.set_on_retry_hooks([_log_retry])
    # Warnings and errors of libraries that use the standard library's logging, in the same format.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forwarder()], force=True)


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    """Log the first retry and every 15th, not each one."""
    if details.retry_num == 1 or details.retry_num % _RETRIES_PER_LINE == 0:
        log.warning("Waiting", error=str(details.caused_by), tries=details.retry_num)


def _name_own_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give a line about a job that job's trace (`trace_ids`, by job)."""
    by_job = event.pop("trace_ids", None)
    if by_job:
        event["trace_id"] = by_job.get(event.get("job_id"), event["trace_id"])
    return event


class _Forwarder(logging.Handler):
    """Passes records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "event": event.pop("event"),
        **event,
    }
    return msgspec.json.encode(ordered, enc_hook=str).decode()


def _console(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    time = event.pop("timestamp")[11:19]
    level = event.pop("level")
    text = event.pop("event")
    exception = event.pop("exception", None)
    parts = [time, text if level in {"info", "debug"} else f"{level.upper()} {text}"]
    fields = " ".join(
        f"{k}={_plain(v)}" for k, v in event.items() if v is not None and k not in _UNSHOWN
    )
    line = _visible(" | ".join([*parts, fields] if fields else parts))
    if exception:
        line = "\n".join([line, *map(_visible, exception.split("\n"))])
    return line


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _plain(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
