"""How commands fail: exit statuses, and errors of the API."""

import enum

_TEMPORARY = frozenset({502, 503, 504})  # ingest starts, or one of its dependencies is unavailable


class Exit(enum.IntEnum):
    """What a command ends with; 2 is a wrong command line."""

    OK = 0
    FAILED = 1  # it ran, and something did not succeed: a document, a job, a check
    UNREACHABLE = 3  # ingest did not answer
    REFUSED = 4  # ingest answered with an error
    WARNED = 5  # it ran, and something needs attention soon


class ApiError(Exception):
    """A request failed. `status` is None if no answer came."""

    def __init__(
        self, message: str, status: int | None = None, *, was_connected: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.was_connected = was_connected

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later: no answer, or 502, 503 or 504."""
        return self.status is None or self.status in _TEMPORARY

    @property
    def exit_status(self) -> Exit:
        """The exit status of a command that ends because of it."""
        return Exit.UNREACHABLE if self.status is None else Exit.REFUSED
