"""Client of Text Embeddings Inference: one HTTP request a call, answers checked, errors by what
must happen next.

DependencyError("tei")    TEI or the way to it: wait
├── TeiOverloadedError    429, back-pressure: ask again after a pause
├── TeiBackendError       424, the model failed on this batch: a few more tries
├── TeiBreakdownError     the connection broke, or a vector is invalid: caused by TEI, or a text
└── BreakingTextError     TEI is available, but breaks on this text
InputRejectedError        a text is at fault (a RejectedError): split until it is alone
"""

import asyncio
import io
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, ClassVar, TypeAlias, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.service.errors import DependencyError, MillstreamError, RejectedError

Vectors: TypeAlias = NDArray[np.float32]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")

CANARY = "canary"
MAX_ERROR_CHARACTERS = 300

_FAULTS_OF_INPUT = frozenset({"Tokenizer", "Validation", "Empty"})
_STATUSES_OF_INPUT = frozenset({400, 413, 422})


class TeiOverloadedError(DependencyError):
    """TEI has no free permit for the request: the sender should slow down."""

    tries: ClassVar[int] = 10

    def __init__(self, reason: str) -> None:
        super().__init__("tei", reason)


class TeiBackendError(DependencyError):
    """TEI's model failed on this batch, for a passing reason or because of one of its texts."""

    tries: ClassVar[int] = 3

    def __init__(self, reason: str) -> None:
        super().__init__("tei", reason)


class TeiBreakdownError(DependencyError):
    """The connection to TEI broke during the request, or its vectors are no numbers.

    It may have been stopped just then, or one of the texts makes it crash.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("tei", reason)


class BreakingTextError(DependencyError):
    """A text on which TEI breaks whenever it is sent alone."""

    may_be_at_fault: ClassVar[bool] = True

    def __init__(self, reason: str) -> None:
        super().__init__("tei", reason)


class InputRejectedError(RejectedError):
    """TEI refuses at least one text of the request; with a single text, that one."""

    def __init__(self, reason: str) -> None:
        super().__init__("tei_rejected", reason, "tei")


class TeiInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What GET /info says, as far as it matters here."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str | None = None
    version: str
    max_input_length: Positive  # tokens of one input, special tokens included
    max_batch_tokens: Positive  # of one batch on the server
    # Inputs of one batch on the server; null: as many as the tokens allow.
    max_batch_requests: Positive | None = None
    max_client_batch_size: Positive  # inputs of one request
    max_concurrent_requests: Positive  # permits over all clients
    auto_truncate: bool = False

    @property
    def counts_inputs(self) -> bool:
        """Whether a permit is for an input (from 1.9 on) or a request; unknown means the lower
        limit.
        """
        version = re.match(r"v?(\d+)\.(\d+)", self.version)
        return version is None or (int(version[1]), int(version[2])) >= (1, 9)


class ServerTiming(msgspec.Struct, frozen=True, kw_only=True):
    """What TEI says of its own time in the headers of an answer: means over the inputs of the
    request.
    """

    queue_s: float  # waiting in the queue of all clients
    inference_s: float  # computing the batch that the input was part of


class Embedded(msgspec.Struct, frozen=True):
    """The answer to one request: `float32[inputs, dimension]`, and TEI's timing if it names it."""

    vectors: Vectors
    timing: ServerTiming | None = None


class Backoff(msgspec.Struct, frozen=True):
    """Tries again what may pass by itself, with full jitter (Exponential Backoff And Jitter, AWS,
    2015).

    Ten tries with these defaults wait 10 s on average and at most 21 s.
    """

    initial_s: float = 0.1
    cap_s: float = 5.0
    jitter: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        return self.jitter(0.0, min(self.cap_s, self.initial_s * 2 ** (failures - 1)))

    async def run(self, send: Callable[[], Awaitable[T]]) -> T:
        """Await `send()` until it succeeds, its error allows no more tries, or it raises any other
        error.
        """
        failures = 0
        while True:
            try:
                return await send()
            except (TeiOverloadedError, TeiBackendError) as error:
                failures += 1
                if failures >= error.tries:
                    raise
            await self.sleep(self.delay_s(failures))


class TeiClient:
    """One TEI server over a session that the caller owns and closes.

    The session's connector must allow as many connections as requests are in flight: waiting for
    one counts against `timeout_s`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        api_keys: Sequence[str] = (),
        timeout_s: float = 30.0,
        embed_timeout_s: float | None = None,
    ) -> None:
        """`embed_timeout_s` is the time limit of requests to /embed; the same as `timeout_s` if not
        given. Of several keys, the client uses the first that the server accepts.
        """
        self._session = session
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._embed_timeout_s = embed_timeout_s or timeout_s
        self._keys = deque(api_keys)

    @property
    def name(self) -> str:
        """The server's address without credentials, for logs and metrics."""
        parts = urlsplit(self._url)
        return parts.netloc.rpartition("@")[2] + parts.path

    async def info(self) -> TeiInfo:
        """Ask for limits and model. Raises DependencyError."""
        answer = (await self._exchange("GET", "/info")).body
        try:
            return msgspec.json.decode(answer, type=TeiInfo)
        except msgspec.DecodeError as error:
            raise DependencyError("tei", f"/info is not TEI's: {error}") from error

    async def health(self) -> None:
        """Return if TEI says that it can work, else raise DependencyError."""
        await self._exchange("GET", "/health")

    async def metrics(self) -> str:
        """Its Prometheus metrics, as text. Raises DependencyError."""
        return (await self._exchange("GET", "/metrics")).body.decode(errors="replace")

    async def probe(self) -> int:
        """Embed one fixed word and return the model's dimension; DependencyError if not even that
        works.
        """
        try:
            return int((await self.embed([CANARY])).shape[1])
        except InputRejectedError as error:
            raise DependencyError("tei", f"it refuses the word {CANARY!r}: {error}") from error

    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text's tokens, special ones included. Raises DependencyError."""
        answer = (
            await self._exchange("POST", "/tokenize", msgspec.json.encode({"inputs": [text]}))
        ).body
        try:
            return [token.id for token in msgspec.json.decode(answer, type=list[list[_Token]])[0]]
        except (msgspec.DecodeError, IndexError) as error:
            raise DependencyError("tei", f"/tokenize is not TEI's: {error}") from error

    async def embed(self, texts: Sequence[str], dimension: int | None = None) -> Vectors:
        """Embed 1 or more texts in one request: `float32[len(texts), dimension]`, in order, never
        truncated.

        Raises InputRejectedError, TeiOverloadedError, TeiBackendError, TeiBreakdownError, and
        DependencyError for all else, among it an answer with vectors that are missing or not of
        `dimension`.
        """
        return (await self.embed_timed(texts, dimension)).vectors

    async def embed_timed(self, texts: Sequence[str], dimension: int | None = None) -> Embedded:
        """As `embed`, with the time that TEI says it took."""
        return await self._embed(texts, dimension, is_cut=False)

    async def embed_query(self, text: str) -> Vectors:
        """Embed one text: `float32[dimension]`; what is beyond the model's window is left out.
        Raises as `embed`.
        """
        vectors: Vectors = (await self._embed([text], None, is_cut=True)).vectors[0]
        return vectors

    async def _embed(
        self, texts: Sequence[str], dimension: int | None, *, is_cut: bool
    ) -> Embedded:
        try:
            body = msgspec.json.encode({"inputs": texts, "truncate": is_cut, "normalize": True})
        except UnicodeEncodeError as error:
            raise InputRejectedError(
                "the text is not valid Unicode: it has a lone surrogate"
            ) from error
        answer = await self._exchange("POST", "/embed", body, self._embed_timeout_s)
        return Embedded(
            decode_vectors(answer.body, len(texts), dimension), timing_of(answer.headers)
        )

    async def _exchange(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float | None = None
    ) -> "_Response":
        for _ in range(max(1, len(self._keys))):
            key = self._keys[0] if self._keys else None
            response = await self._request(method, path, body, timeout_s, key)
            if response.status != HTTPStatus.UNAUTHORIZED:
                break
            if self._keys and self._keys[0] == key:  # no concurrent request has moved on already
                self._keys.rotate(-1)
        if response.status != HTTPStatus.OK:
            raise error_of(response.status, response.body)
        return response

    async def _request(
        self, method: str, path: str, body: bytes | None, timeout_s: float | None, key: str | None
    ) -> "_Response":
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        # Aiohttp warns about plain bytes above 1 MiB.
        data = None if body is None else io.BytesIO(body)
        try:
            # A redirect would lead to a host that is not allowed.
            async with self._session.request(
                method,
                self._url + path,
                data=data,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                answer = await response.read()
        except TimeoutError as error:
            raise DependencyError(
                "tei", f"no answer to {path} within {timeout.total:g} s"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise DependencyError("tei", f"{type(error).__name__}: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TeiBreakdownError(f"{type(error).__name__}: {error}") from error
        return _Response(response.status, answer, response.headers)


class _Response(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: Mapping[str, str]


def timing_of(headers: Mapping[str, str]) -> ServerTiming | None:
    """Read the headers by which TEI says what its time went into; None if a proxy or another server
    left them out.
    """
    try:
        milliseconds = [float(headers[name]) for name in ("x-queue-time", "x-inference-time")]
    except (KeyError, ValueError):
        return None
    return ServerTiming(queue_s=milliseconds[0] / 1000, inference_s=milliseconds[1] / 1000)


def decode_vectors(answer: bytes, count: int, dimension: int | None = None) -> Vectors:
    """Read the answer to /embed as `float32[count, dimension]`.

    TeiBreakdownError if a vector is no direction: null (so TEI writes NaN), infinite or zero.
    DependencyError if the answer is anything else.

    0.6 ms for 32 x 384. OpenAI's route with base64 would take 0.06 ms but knows no `truncate:
    false`.
    """
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
            vectors = np.array(
                msgspec.json.decode(answer, type=list[list[float | None]]), dtype=np.float32
            )
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: rows of different lengths
        raise DependencyError("tei", f"the answer is not a list of vectors: {error}") from error
    if problem := _misfit(vectors, count, dimension):
        raise DependencyError("tei", f"the answer is unusable: {problem}")
    if not np.isfinite(vectors).all():
        raise TeiBreakdownError("the answer is unusable: a number is not finite")
    if not vectors.any(axis=1).all():
        raise TeiBreakdownError("the answer is unusable: a vector is zero")
    return vectors


def error_of(status: int, body: bytes) -> MillstreamError:
    """Say what an answer other than 200 means."""
    kind, text = _error_type_and_text(body)
    text = text[:MAX_ERROR_CHARACTERS]
    reason = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return TeiOverloadedError(reason)
    if status == HTTPStatus.FAILED_DEPENDENCY:
        return TeiBackendError(reason)
    # A 4xx that is not TEI's own may come from a proxy or from a wrong URL: that must not condemn
    # documents.
    if status in _STATUSES_OF_INPUT and kind in _FAULTS_OF_INPUT:
        return InputRejectedError(text)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return InputRejectedError(reason)
    if status == HTTPStatus.UNAUTHORIZED:
        reason += " (check WEBHOOK_TEI_API_KEY)"
    return DependencyError("tei", reason)


class _Token(msgspec.Struct):
    id: int


class _ErrorBody(msgspec.Struct):
    error: str
    error_type: str


def _error_type_and_text(body: bytes) -> tuple[str, str]:
    try:
        answer = msgspec.json.decode(body, type=_ErrorBody)
    except msgspec.DecodeError:
        return "", body.decode(errors="replace")
    return answer.error_type, answer.error


def _misfit(vectors: Vectors, count: int, dimension: int | None) -> str:
    if vectors.ndim != 2 or len(vectors) != count:
        return f"{len(vectors)} vectors for {count} texts"
    width = vectors.shape[1]
    if width == 0 or dimension not in {None, width}:
        return f"dimension {width}, expected {dimension or 'at least 1'}"
    return ""
