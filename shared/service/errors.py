"""Errors, classified by what must happen next.

    MillstreamError
    ├── ConfigurationError   the operator acts; a service refuses to start
    ├── DependencyError      wait; a dependency is unavailable, which costs no attempt
    ├── RejectedError        the author acts; the document is a dead letter
    └── DrainingError        another process does the work; this one drains

Any other exception of a handler is a bug: retried up to the limit, then a dead letter with the
traceback.
"""

from typing import ClassVar

from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError, ResponseError


class MillstreamError(Exception):
    """Base of every error that millstream raises on purpose."""


class ConfigurationError(MillstreamError):
    """A setting, or the state of a server, that makes a start unsafe.

    The message names the remedy.
    """


class ForeignRedisError(ConfigurationError):
    """The keys in Redis belong to another deployment.

    `owner` and `own` are the ids of both: the times at which their databases got the first schema.
    """

    def __init__(self, owner: str, own: str) -> None:
        super().__init__(
            "the keys in Redis belong to another deployment, whose database was created at "
            f"{owner} (this one: {own}): point WEBHOOK_REDIS_URL to another Redis or to another "
            "database number (redis://HOST:6379/1), or if the other database no longer exists run "
            "`redis-cli -u \"$WEBHOOK_REDIS_URL\" DEL '{webhook}:owner'`"
        )
        self.owner = owner
        self.own = own


class DependencyError(MillstreamError):
    """A dependency failed.

    `service` is redis, postgres, tei, qdrant, or splitter (the chunker's own).
    """

    # The document, if the canary shows that the dependency is healthy.
    may_be_at_fault: ClassVar[bool] = False

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.reason = reason


class RejectedError(MillstreamError):
    """This document can never succeed unchanged.

    `code` is a short, stable word for filters and counters.

    `service` is the dependency that rejected it, None if millstream did.
    """

    def __init__(self, code: str, reason: str, service: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.service = service


class DrainingError(MillstreamError):
    """The process drains and does not start this work; the entry returns to the stream at once."""

    def __init__(self) -> None:
        super().__init__("the process is draining")


# redis-py has no class for most of these. The first word of the server's text distinguishes them.


def is_missing_group(error: BaseException) -> bool:
    """Return whether the consumer group or its stream does not exist (FLUSHALL, XGROUP DESTROY)."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)


def is_too_large(error: BaseException) -> bool:
    """Return whether Redis refuses a value for its size (`proto-max-bulk-len`, or a stream's)."""
    return isinstance(error, ResponseError) and any(
        words in str(error) for words in ("invalid bulk length", "too large to be stored")
    )


def is_refusing_writes(error: BaseException) -> bool:
    """Return whether Redis answers but refuses writes.

    Memory or disk is full, it is a replica or has too few, or a script hangs.
    """
    # Where redis-py has a class, it removes that word from the text.
    return isinstance(error, OutOfMemoryError | ReadOnlyError | MasterDownError) or (
        isinstance(error, ResponseError)
        and str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY "))
    )
