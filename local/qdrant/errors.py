"""What a request can be answered with when it fails, in Qdrant's words and status codes."""

import contextlib
from collections.abc import Iterator
from typing import Self


class ApiError(Exception):
    """Becomes `{"status": {"error": message}, "time": 0}` with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @classmethod
    def malformed(cls, reason: object) -> Self:
        """The body is not JSON, or not of the shape that the route takes."""
        return cls(400, f"Format error in JSON body: {reason}")

    @classmethod
    def wrong_input(cls, reason: object) -> Self:
        """The body has the right shape but does not fit the collection."""
        return cls(400, f"Wrong input: {reason}")

    @classmethod
    def invalid(cls, reason: object) -> Self:
        """A value breaks a rule that holds for every collection."""
        return cls(422, f"Validation error in JSON body: [{reason}]")

    @classmethod
    def missing_collection(cls, name: str) -> Self:
        return cls(404, f"Not found: Collection `{name}` doesn't exist!")

    @classmethod
    def existing_collection(cls, name: str) -> Self:
        return cls(409, f"Wrong input: Collection `{name}` already exists!")


class EnginePanicError(Exception):
    """The engine panicked: this call failed, and what it was writing may be half written."""


def is_panic(error: BaseException) -> bool:
    """A Rust panic; PyO3 raises it as a BaseException whose class cannot be imported."""
    return type(error).__name__ == "PanicException"


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Around calls that check or read: what the engine refuses is the request's fault, answered
    with 400.
    """
    try:
        yield
    except Exception as error:
        if not _is_refusal(error):
            raise
        raise ApiError.wrong_input(error) from error


def _is_refusal(error: Exception) -> bool:
    # The engine has no classes of its own: bad arguments are Value- or TypeError, all else is plain
    # Exception.
    if str(error).startswith("Service"):
        return False  # its own fault: "Service runtime error", "Service internal error"
    return type(error) in {Exception, ValueError, TypeError, OverflowError}
