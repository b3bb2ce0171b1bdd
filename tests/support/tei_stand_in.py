"""A stand-in for Text Embeddings Inference at its HTTP border: true limits and errors, made-up
vectors.

A text's vector depends on the text alone (`vector_of`), so a test can tell whose vector it got.
Faults are ordered with `fail`, `break_on` and `hold`; `counts` says what happened. tests/contract/
runs one suite against it and against the embedded server.
"""

import asyncio
import enum
import hashlib
import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from bench.stand_ins.tei_queue import BatchCost, BatchQueue, Timing
from shared.tei.tokenizer import load_tokenizer

SPECIAL_TOKENS = 2


class Fault(enum.Enum):
    """What can go wrong with one request to /embed."""

    OVERLOADED = enum.auto()  # 429
    BACKEND = enum.auto()  # 424
    REJECTED = enum.auto()  # 422, or 413 before 1.9
    UNAVAILABLE = enum.auto()  # 503 without a body of TEI's, as a proxy sends it
    HANG = enum.auto()  # no answer until `heal` or the end
    RESET = enum.auto()  # the connection breaks
    NOT_JSON = enum.auto()
    CUT = enum.auto()  # the answer ends half-way
    NULL = enum.auto()  # vectors of null: TEI's way to write NaN
    NAN = enum.auto()  # vectors of NaN, which is not JSON
    ZERO = enum.auto()
    MISSING = enum.auto()  # one vector fewer than texts
    WRONG_DIMENSION = enum.auto()
    RAGGED = enum.auto()  # the last vector is shorter


class StandInSettings(msgspec.Struct, frozen=True, kw_only=True):
    """TEI's command line, with its defaults. A word is a token here, and each text has two more."""

    version: str = "1.9.3"
    model_id: str = "stand-in"
    dimension: int = 384
    max_input_length: int = 512
    max_batch_tokens: int = 16_384
    max_client_batch_size: int = 32
    max_concurrent_requests: int = 512
    payload_limit: int = 2_000_000
    api_key: str = ""
    latency_s: float = 0.0
    max_batch_requests: int | None = None  # inputs of one batch
    batch_cost: BatchCost | None = None  # requests wait in one queue, and batches take this time

    @property
    def is_modern(self) -> bool:
        """From 1.9 on a permit is for one input, and faults of an input are 422."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (1, 9)


class Counts(msgspec.Struct):
    """What a stand-in has seen on /embed. `embedded` counts each text that it returned a vector
    for.
    """

    requests: int = 0
    inputs: int = 0
    succeeded: int = 0
    overloaded: int = 0
    failed: int = 0  # all other errors
    abandoned: int = 0  # the client went away
    permits: int = 0  # in use now
    peak_requests: int = 0
    peak_permits: int = 0


class EmbedBody(msgspec.Struct):
    inputs: str | list[str]
    truncate: bool | None = None
    normalize: bool = True


class TeiError(Exception):
    """An answer of TEI's other than 200."""

    def __init__(self, status: int, error: str, error_type: str) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "error_type": error_type}


def vector_of(text: str, dimension: int = 384) -> NDArray[np.float32]:
    """The unit vector of a text, `float32[dimension]`."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def vectors_of(texts: list[str], dimension: int = 384) -> NDArray[np.float32]:
    """The unit vectors of texts, `float32[len(texts), dimension]`."""
    return np.array([vector_of(text, dimension) for text in texts], dtype=np.float32).reshape(
        -1, dimension
    )


class TeiStandIn:
    """An async context manager that serves on a free port of 127.0.0.1, or on `port`.

    Stopped and started again with the same object, it keeps its port, so that an outage can be
    played.
    """

    def __init__(
        self, settings: StandInSettings | None = None, *, port: int = 0, seed: int = 0
    ) -> None:
        self.settings = settings or StandInSettings()
        self.counts = Counts()
        self.batches: list[
            list[str]
        ] = []  # texts of each request that was read, in order of arrival
        self.health_status = 200
        self._port = port
        self._random = random.Random(seed)
        self._ordered: list[tuple[Fault, int]] = []  # faults of the next requests, with how many
        self._standing: tuple[tuple[Fault, ...], float] | None = (
            None  # faults and their share of requests
        )
        self._breaks: list[tuple[Callable[[str], bool], Fault]] = []
        self._passing: frozenset[str] = frozenset()
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._recovered = asyncio.Event()
        self._in_flight = 0
        self.queue: BatchQueue | None = None
        if self.settings.batch_cost is not None:
            self.queue = BatchQueue(
                self.settings.max_batch_requests or 64, self.settings.batch_cost
            )
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def in_flight(self) -> int:
        """Requests to /embed that were read and not answered."""
        return self._in_flight

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; from here on `url` is right."""
        app = web.Application(
            client_max_size=self.settings.payload_limit, middlewares=[self._authorize]
        )
        app.router.add_post("/embed", self._embed)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/info", self._info)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        # Cancelled handlers are how an abandoned request becomes visible.
        if self.queue:
            self.queue.start()
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and all connections: from here on they are refused."""
        self.heal()
        if self._runner is not None:
            await self._runner.cleanup()
        if self.queue:
            await self.queue.stop()

    def fail(self, fault: Fault, times: int = 1) -> None:
        """Let the next requests fail; orders queue up."""
        self._ordered.append((fault, times))

    def fail_always(self, *faults: Fault, share: float = 1.0) -> None:
        """Let this share of requests fail, each with one of the faults, picked at random by the
        seed, until `heal`.
        """
        self._standing = (faults, share)

    def break_on(self, is_bad: Callable[[str], bool], fault: Fault = Fault.REJECTED) -> None:
        """Let each request fail that holds a bad text, until `heal`."""
        self._breaks.append((is_bad, fault))

    def hold(self, *passing: str) -> None:
        """Keep requests in flight, with their permits, until `release`; but for those with only
        `passing` texts.
        """
        self._passing = frozenset(passing)
        self._open_gate.clear()

    def release(self) -> None:
        self._open_gate.set()

    def heal(self) -> None:
        """Forget all faults and let go of what hangs."""
        self._ordered.clear()
        self._breaks.clear()
        self._standing = None
        self.release()
        self._recovered.set()
        self._recovered = asyncio.Event()

    @web.middleware
    async def _authorize(
        self, request: web.Request, handler: Callable[..., object]
    ) -> web.StreamResponse:
        key = self.settings.api_key
        is_open = not key or request.path == "/health"
        if not is_open and request.headers.get("Authorization") != f"Bearer {key}":
            return web.Response(status=401)
        answer = await handler(request)  # type: ignore[misc]
        assert isinstance(answer, web.StreamResponse)
        return answer

    async def _info(self, _: web.Request) -> web.Response:
        limits = (
            "version",
            "max_input_length",
            "max_batch_tokens",
            "max_batch_requests",
            "max_client_batch_size",
        )
        answer = {
            name: getattr(self.settings, name) for name in (*limits, "max_concurrent_requests")
        }
        model = {
            "model_id": self.settings.model_id,
            "model_sha": None,
            "model_type": {"embedding": {"pooling": "mean"}},
        }
        return web.json_response(model | answer | {"auto_truncate": self.settings.is_modern})

    async def _tokenize(self, request: web.Request) -> web.Response:
        """The ids by the bundled model's tokenizer, which services compare with their own at the
        start.
        """
        inputs = (await request.json())["inputs"]
        encoded = load_tokenizer(None).encode_batch([inputs] if isinstance(inputs, str) else inputs)
        return web.json_response(
            [[{"id": number} for number in encoding.ids] for encoding in encoded]
        )

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health_status)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.queue.metrics() if self.queue else "")

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        self.counts.requests += 1
        try:
            body = msgspec.json.decode(await request.read(), type=EmbedBody)
        except msgspec.DecodeError as error:
            self.counts.failed += 1
            return web.Response(status=422, text=f"Failed to deserialize the JSON body: {error}")
        except web.HTTPRequestEntityTooLarge:
            self.counts.failed += 1
            return web.Response(status=413, text="length limit exceeded")
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        self.batches.append(texts)
        self.counts.inputs += len(texts)
        self._in_flight += 1
        self.counts.peak_requests = max(self.counts.peak_requests, self._in_flight)
        try:
            return await self._answer(request, body, texts)
        except TeiError as error:
            overloaded = error.status == 429
            self.counts.overloaded += overloaded
            self.counts.failed += not overloaded
            return web.json_response(error.body, status=error.status)
        except asyncio.CancelledError:
            self.counts.abandoned += 1
            raise
        finally:
            self._in_flight -= 1

    async def _answer(
        self, request: web.Request, body: EmbedBody, texts: list[str]
    ) -> web.StreamResponse:
        fault = self._fault_of(texts)
        if fault is Fault.OVERLOADED:
            raise TeiError(429, "Model is overloaded", "Overloaded")
        self._check(
            texts, truncate=self.settings.is_modern if body.truncate is None else body.truncate
        )
        permits = len(texts) if self.settings.is_modern else 1
        if self.counts.permits + permits > self.settings.max_concurrent_requests:
            raise TeiError(429, "Model is overloaded", "Overloaded")
        self.counts.permits += permits
        self.counts.peak_permits = max(self.counts.peak_permits, self.counts.permits)
        try:
            timing = await self._compute(texts)
            return await self._outcome(request, fault, texts, timing)
        finally:
            self.counts.permits -= permits

    async def _compute(self, texts: list[str]) -> Timing:
        await asyncio.sleep(self.settings.latency_s)
        if not self._passing.issuperset(texts):
            await self._open_gate.wait()
        if self.queue:
            return await self.queue.compute(len(texts))
        return Timing(inference_s=self.settings.latency_s)

    def _fault_of(self, texts: list[str]) -> Fault | None:
        for is_bad, fault in self._breaks:
            if any(map(is_bad, texts)):
                return fault
        if self._ordered:
            fault, times = self._ordered.pop(0)
            if times > 1:
                self._ordered.insert(0, (fault, times - 1))
            return fault
        if self._standing and self._random.random() < self._standing[1]:
            return self._random.choice(self._standing[0])
        return None

    def _check(self, texts: list[str], *, truncate: bool) -> None:
        limit = self.settings.max_client_batch_size
        status = 422 if self.settings.is_modern else 413
        if not texts or not all(texts):
            raise TeiError(400, "`inputs` cannot be empty", "Empty")
        if len(texts) > limit:
            error = f"batch size {len(texts)} > maximum allowed batch size {limit}"
            raise TeiError(status, error, "Validation")
        longest = max(len(text.split()) + SPECIAL_TOKENS for text in texts)
        if longest > self.settings.max_input_length and not truncate:
            error = f"`inputs` must have less than {self.settings.max_input_length} tokens. Given: {longest}"
            raise TeiError(status, f"Input validation error: {error}", "Validation")

    def _cut(self, text: str) -> str:
        words = text.split()
        room = self.settings.max_input_length - SPECIAL_TOKENS
        return text if len(words) <= room else " ".join(words[:room])

    async def _outcome(
        self, request: web.Request, fault: Fault | None, texts: list[str], timing: Timing
    ) -> web.StreamResponse:
        if fault is Fault.BACKEND:
            raise TeiError(424, "Inference failed: the backend did not answer", "Backend")
        if fault is Fault.REJECTED:
            status = 422 if self.settings.is_modern else 413
            raise TeiError(status, "Tokenization error: a bad text", "Tokenizer")
        if fault is Fault.HANG:
            await self._recovered.wait()
        if fault is Fault.RESET and request.transport is not None:
            request.transport.abort()
        vectors = vectors_of([self._cut(text) for text in texts], self.settings.dimension)
        if fault in {None, Fault.HANG}:
            self.counts.succeeded += 1
            body = msgspec.json.encode(vectors.tolist())
            return web.Response(body=body, content_type="application/json", headers=timing.headers)
        self.counts.failed += 1
        if fault is Fault.UNAVAILABLE:
            return web.Response(status=503, text="upstream connect error")
        if fault is Fault.CUT:
            return await _cut_short(request)
        return web.Response(body=_garbage(fault, vectors), content_type="application/json")


async def _cut_short(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"[[0.1, 0.2")
    assert request.transport is not None
    request.transport.close()
    return answer


def _garbage(fault: Fault | None, vectors: NDArray[np.float32]) -> bytes:
    if fault is Fault.NAN:
        return b"[" + b",".join([b"[NaN]"] * len(vectors)) + b"]"
    values = vectors.tolist()
    match fault:
        case Fault.NULL:
            values = [[None] * len(vector) for vector in values]
        case Fault.ZERO:
            values = [[0.0] * len(vector) for vector in values]
        case Fault.MISSING:
            values = values[1:]
        case Fault.WRONG_DIMENSION:
            values = [vector[1:] for vector in values]
        case Fault.RAGGED:
            values[-1] = values[-1][1:]
        case _:
            return b"<html>"
    return msgspec.json.encode(values)
