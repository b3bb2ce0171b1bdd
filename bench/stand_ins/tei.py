"""A TEI with a given speed: `python -m bench.stand_ins.tei --mode tei --port 8080`.

It answers /embed after `base + per_input x inputs`, or at once with 429 when as many requests are
in flight as may be. A mode with a queue computes batches one after the other, as TEI on a CPU does.
Vectors are made up: encoded once, chosen by the text. GET /counts says what happened, POST /reset
begins anew, POST /slowness?factor=3 makes batches slower.
"""

import argparse
import asyncio
import time
import zlib
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import uvloop
from aiohttp import web

from bench.stand_ins.tei_queue import BatchCost, BatchQueue, Timing
from shared.tei.tokenizer import load_tokenizer

DIMENSION = 384
MAX_INPUTS = 32
_VARIETY = 1024  # different vectors
_MAX_BODY_BYTES = 2_000_000


class Mode(msgspec.Struct, frozen=True):
    """How long a request takes, in seconds, and how many may be in flight.

    With `batch_inputs`, base and per_input are those of a batch of so many inputs, and requests
    queue.
    """

    base: float
    per_input: float
    requests: int
    batch_inputs: int | None = None

    @property
    def inputs_per_s(self) -> float:
        """The best that any client can get: every request full, always as many in flight as may be."""
        if self.batch_inputs:
            return self.batch_inputs / (self.base + self.batch_inputs * self.per_input)
        return self.requests * MAX_INPUTS / (self.base + MAX_INPUTS * self.per_input)


MODES = {
    "fixed": Mode(0.5, 0.0, 512),
    "tei": Mode(0.1, 0.002, 8),
    "bound": Mode(0.2, 0.01, 4),
    "single": Mode(0.5, 0.0, 1),
    "cpu": Mode(0.0, 0.125, 512, batch_inputs=4),  # MiniLM on two cores: 8 inputs/s
    "quick-cpu": Mode(0.0, 0.025, 512, batch_inputs=4),
}


class Counts(msgspec.Struct):
    """What was asked since the last reset; times are seconds of `time.time`."""

    requests: int = 0
    inputs: int = 0  # of requests that were answered
    overloaded: int = 0  # requests answered with 429
    peak: int = 0  # most requests in flight
    abandoned: int = 0  # requests whose client went away
    dropped: int = 0  # inputs of such requests that were not computed
    busy: float = 0.0  # share of the time between first and last batch in which one was computed
    queue_p95_s: float = 0.0  # of inputs
    first_input_at: float = 0.0
    last_answer_at: float = 0.0


class _Inputs(msgspec.Struct):
    inputs: str | list[str]


class TeiStandIn:
    """The server's state and routes."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._counts = Counts()
        self._in_flight = 0
        self._queue: BatchQueue | None = None
        if mode.batch_inputs:
            self._queue = BatchQueue(
                mode.batch_inputs, BatchCost(fixed_s=mode.base, input_s=mode.per_input)
            )
        self._tokenizer = load_tokenizer(None)
        vectors = np.random.default_rng(0).normal(size=(_VARIETY, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._vectors = [msgspec.json.encode(vector.tolist()) for vector in vectors]

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/info", self._info)
        app.router.add_get("/health", self._health)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/embed", self._embed)
        app.router.add_post("/v1/embeddings", self._openai)
        app.router.add_get("/counts", self._report)
        app.router.add_post("/reset", self._reset)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/slowness", self._slow_down)
        if self._queue:
            app.cleanup_ctx.append(self._run_queue)
        return app

    async def _run_queue(self, _: web.Application) -> AsyncIterator[None]:
        assert self._queue is not None
        self._queue.start()
        yield
        await self._queue.stop()

    async def _info(self, _: web.Request) -> web.Response:
        return _json(
            {
                "model_id": "stand-in", "version": "1.9.3" if self._queue else "1.8.3", "max_input_length": 512,
                "max_batch_tokens": 16384, "max_batch_requests": self._mode.batch_inputs,
                "max_client_batch_size": MAX_INPUTS, "max_concurrent_requests": self._mode.requests,
            }
        )  # fmt: skip

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _tokenize(self, request: web.Request) -> web.Response:
        encodings = self._tokenizer.encode_batch(await _texts(request))
        return _json([[{"id": number} for number in encoding.ids] for encoding in encodings])

    async def _embed(self, request: web.Request) -> web.Response:
        texts = await _texts(request)
        timing = await self._work(len(texts))
        if timing is None:
            return _json({"error": "Model is overloaded", "error_type": "Overloaded"}, 429)
        body = b"[" + b",".join(map(self._vector, texts)) + b"]"
        return web.Response(body=body, content_type="application/json", headers=timing.headers)

    async def _openai(self, request: web.Request) -> web.Response:
        texts = await _texts(request)
        if await self._work(len(texts)) is None:
            return _json({"message": "Model is overloaded", "code": 429, "type": "Overloaded"}, 429)
        data = [
            {"object": "embedding", "index": index, "embedding": msgspec.Raw(self._vector(text))}
            for index, text in enumerate(texts)
        ]
        return _json(
            {
                "object": "list",
                "model": "stand-in",
                "data": data,
                "usage": {"prompt_tokens": 0, "total_tokens": 0},
            }
        )

    async def _work(self, inputs: int) -> Timing | None:
        """Take the time that a request of so many inputs takes; None if there is no room for it."""
        if self._in_flight >= self._mode.requests:
            self._counts.overloaded += 1
            return None
        self._counts.first_input_at = self._counts.first_input_at or time.time()
        self._in_flight += 1
        self._counts.peak = max(self._counts.peak, self._in_flight)
        try:
            timing = await self._compute(inputs)
        except asyncio.CancelledError:
            self._counts.abandoned += 1
            raise
        finally:
            self._in_flight -= 1
        self._counts.requests += 1
        self._counts.inputs += inputs
        self._counts.last_answer_at = time.time()
        return timing

    async def _compute(self, inputs: int) -> Timing:
        if self._queue:
            return await self._queue.compute(inputs)
        seconds = self._mode.base + inputs * self._mode.per_input
        await asyncio.sleep(seconds)
        return Timing(inference_s=seconds)

    async def _report(self, _: web.Request) -> web.Response:
        if self._queue:
            self._counts.dropped = self._queue.dropped
            self._counts.busy = self._queue.busy
            self._counts.queue_p95_s = self._queue.wait_s(0.95)
        return _json(self._counts)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._queue.metrics() if self._queue else "")

    async def _slow_down(self, request: web.Request) -> web.Response:
        if self._queue:
            self._queue.slowness = float(request.query["factor"])
        return web.Response()

    async def _reset(self, _: web.Request) -> web.Response:
        self._counts = Counts()
        if self._queue:
            self._queue.reset()
        return web.Response()

    def _vector(self, text: str) -> bytes:
        return self._vectors[zlib.crc32(text.encode()) % _VARIETY]


async def _texts(request: web.Request) -> list[str]:
    body = await request.read()
    try:
        inputs = msgspec.json.decode(body, type=_Inputs).inputs
    except msgspec.ValidationError:  # OpenAI's route
        inputs = msgspec.json.decode(body)["input"]
    return [inputs] if isinstance(inputs, str) else inputs


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(answer), status=status, content_type="application/json"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stand_ins.tei", description=__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = TeiStandIn(MODES[options.mode]).app()
    # Cancelled handlers are how the queue learns that a client has gone.
    web.run_app(
        app,
        host="127.0.0.1",
        port=options.port,
        print=None,
        access_log=None,
        handler_cancellation=True,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
