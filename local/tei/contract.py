"""What TEI 1.9 says on the wire: requests, answers, errors and the limits behind them. No I/O.

Taken from TEI's router/src/http and core/src. Left out: inputs of token ids, and routes nobody here
calls.
"""

import enum
from typing import Annotated, Literal

import msgspec

VERSION = "1.9.0-millstream"  # clients choose the meaning of max_concurrent_requests by it
# TEI tokenises at most this many characters for each token of the window.
MAX_CHARACTERS_PER_TOKEN = 250

Side = Literal["Left", "Right"]


class ErrorType(enum.StrEnum):
    """TEI's classes of errors; each has one HTTP status."""

    UNHEALTHY = "Unhealthy"
    BACKEND = "Backend"
    OVERLOADED = "Overloaded"
    VALIDATION = "Validation"
    TOKENIZER = "Tokenizer"
    EMPTY = "Empty"

    @property
    def status(self) -> int:
        return _STATUS[self]


_STATUS = {
    ErrorType.UNHEALTHY: 503,
    ErrorType.BACKEND: 424,
    ErrorType.OVERLOADED: 429,
    ErrorType.VALIDATION: 422,
    ErrorType.TOKENIZER: 422,
    ErrorType.EMPTY: 400,
}


class TeiError(Exception):
    """A request that TEI answers with an error; one bad input fails its whole request."""

    def __init__(self, error_type: ErrorType, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class ErrorBody(msgspec.Struct, frozen=True):
    error: str
    error_type: ErrorType


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one server, with TEI's defaults."""

    # Tokens of one input, special tokens included; the model was trained on 256.
    max_input_length: int = 256
    max_client_batch_size: int = 32  # inputs in one request
    # Permits: from 1.9 on each input takes one, over all clients.
    max_concurrent_requests: int = 512
    max_batch_tokens: int = 16384  # padded tokens in one run of the model
    max_payload_bytes: int = 2_000_000

    @property
    def max_input_characters(self) -> int:
        return self.max_input_length * MAX_CHARACTERS_PER_TOKEN

    def check_batch(self, size: int) -> None:
        """Raise TeiError for a request without inputs or with too many."""
        if size == 0:
            raise empty_input()
        if size > self.max_client_batch_size:
            limit = self.max_client_batch_size
            raise TeiError(
                ErrorType.VALIDATION, f"batch size {size} > maximum allowed batch size {limit}"
            )


class EmbedRequest(msgspec.Struct, frozen=True):
    """The body of POST /embed."""

    inputs: str | list[str]
    truncate: bool | None = None  # None: as the server's auto_truncate, which 1.9 has on
    truncation_direction: Side = "Right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def method(self) -> str:
        return "single" if isinstance(self.inputs, str) else "batch"

    @property
    def truncation(self) -> Side | None:
        return None if self.truncate is False else self.truncation_direction


class TokenizeRequest(msgspec.Struct, frozen=True):
    """The body of POST /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Token(msgspec.Struct, frozen=True):
    """One token of a text; `start` and `stop` are characters, null for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /info."""

    model_id: str
    model_sha: str
    model_dtype: str = "float32"
    model_type: dict[str, dict[str, str]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int
    version: str = VERSION
    sha: str | None = None
    docker_label: str | None = None


def input_list(inputs: str | list[str]) -> list[str]:
    """A single input is a list of one."""
    return [inputs] if isinstance(inputs, str) else inputs


def invalid(message: str) -> TeiError:
    """The error of an input that TEI's core refuses."""
    return TeiError(ErrorType.VALIDATION, f"Input validation error: {message}")


def empty_input() -> TeiError:
    """The error of an empty string and of an empty list."""
    return TeiError(ErrorType.EMPTY, "Input validation error: `inputs` cannot be empty")


def check_prompt_name(prompt_name: str | None) -> None:
    """Raise TeiError if a prompt is asked for: this model's configuration has none."""
    if prompt_name is not None:
        raise invalid(
            f"`default-prompt-name` is set to `{prompt_name}` but no prompts were found "
            "in the Sentence Transformers configuration"
        )
