"""What can go wrong, by who must act on it.

    MillstreamError
    ├── ConfigurationError   the operator: a service refuses to start and says the remedy
    ├── DependencyError      time: Redis, Postgres, TEI or Qdrant is away; costs a document no attempt
    ├── RejectedError        the document's author: a dead letter, never tried again by itself
    └── DrainingError        another process: this one ends before it can do the work

Anything else that leaves a handler is a bug: retried to the limit, then a dead letter with its traceback.
"""

from typing import ClassVar

from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError, ResponseError


class MillstreamError(Exception):
    """Base of every error that millstream raises on purpose."""


class ConfigurationError(MillstreamError):
    """A setting or a server's state that makes starting unsafe; the message names the remedy."""


class DependencyError(MillstreamError):
    """A dependency did not do its part. `service` is redis, postgres, tei, qdrant, or splitter (the chunker's own)."""

    may_be_at_fault: ClassVar[bool] = False  # the document, if the dependency turns out to be healthy

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.reason = reason


class RejectedError(MillstreamError):
    """This document can never succeed as it is. `code` is a short, stable word for filters and counters.

    `service` is the dependency that says so, None if we found it ourselves.
    """

    def __init__(self, code: str, reason: str, service: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.service = service


class DrainingError(MillstreamError):
    """The process drains and does not begin this work any more; its entry goes back to the stream at once."""

    def __init__(self) -> None:
        super().__init__("the process is draining")


# redis-py has no class for most of these: they are told apart by the word that the server's text begins with.


def is_missing_group(error: BaseException) -> bool:
    """The consumer group or its stream is gone (FLUSHALL, XGROUP DESTROY)."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)


def is_refusing_writes(error: BaseException) -> bool:
    """Redis is up but takes no writes: memory full, disk full, a replica, too few replicas, or a script that hangs."""
    # Where redis-py has a class, it cuts the word by which the server names the error off the text.
    return isinstance(error, OutOfMemoryError | ReadOnlyError | MasterDownError) or (
        isinstance(error, ResponseError) and str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY "))
    )
