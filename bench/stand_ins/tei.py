"""A TEI with a given speed: `python -m bench.stand_ins.tei --mode tei --port 8080`.

It answers /embed after `base + per_input x inputs`, or at once with 429 when it has as many requests in hand as it may.
Vectors are made up: encoded once, chosen by the text. GET /counts says what happened, POST /reset begins anew.
"""

import argparse
import asyncio
import time
import zlib

import msgspec
import numpy as np
import uvloop
from aiohttp import web

from shared.tei.tokenizer import load_tokenizer

DIMENSION = 384
MAX_INPUTS = 32
_VARIETY = 1024  # different vectors
_MAX_BODY_BYTES = 2_000_000


class Mode(msgspec.Struct, frozen=True):
    """How long a request takes, in seconds, and how many may be in hand."""

    base: float
    per_input: float
    requests: int

    @property
    def inputs_per_s(self) -> float:
        """The best that any client can get: every request full, always as many in hand as may be."""
        return self.requests * MAX_INPUTS / (self.base + MAX_INPUTS * self.per_input)


MODES = {
    "fixed": Mode(0.5, 0.0, 512),
    "tei": Mode(0.1, 0.002, 8),
    "bound": Mode(0.2, 0.01, 4),
    "single": Mode(0.5, 0.0, 1),
}


class Counts(msgspec.Struct):
    """What was asked since the last reset; times are seconds of `time.time`."""

    requests: int = 0
    inputs: int = 0  # of requests that were answered
    overloaded: int = 0  # requests answered with 429
    peak: int = 0  # most requests in hand
    first_input_at: float = 0.0
    last_answer_at: float = 0.0


class _Inputs(msgspec.Struct):
    inputs: str | list[str]


class TeiStandIn:
    """The server's state and routes."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._counts = Counts()
        self._in_hand = 0
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
        return app

    async def _info(self, _: web.Request) -> web.Response:
        return _json(
            {
                "model_id": "stand-in", "version": "1.8.3", "max_input_length": 512, "max_batch_tokens": 16384,
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
        if not await self._work(len(texts)):
            return _json({"error": "Model is overloaded", "error_type": "Overloaded"}, 429)
        return web.Response(body=b"[" + b",".join(map(self._vector, texts)) + b"]", content_type="application/json")

    async def _openai(self, request: web.Request) -> web.Response:
        texts = await _texts(request)
        if not await self._work(len(texts)):
            return _json({"message": "Model is overloaded", "code": 429, "type": "Overloaded"}, 429)
        data = [
            {"object": "embedding", "index": index, "embedding": msgspec.Raw(self._vector(text))}
            for index, text in enumerate(texts)
        ]
        return _json(
            {"object": "list", "model": "stand-in", "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
        )

    async def _work(self, inputs: int) -> bool:
        """Take the time that a request of so many inputs takes; False if there is no room for it."""
        if self._in_hand >= self._mode.requests:
            self._counts.overloaded += 1
            return False
        self._counts.first_input_at = self._counts.first_input_at or time.time()
        self._in_hand += 1
        self._counts.peak = max(self._counts.peak, self._in_hand)
        try:
            await asyncio.sleep(self._mode.base + inputs * self._mode.per_input)
        finally:
            self._in_hand -= 1
        self._counts.requests += 1
        self._counts.inputs += inputs
        self._counts.last_answer_at = time.time()
        return True

    async def _report(self, _: web.Request) -> web.Response:
        return _json(self._counts)

    async def _reset(self, _: web.Request) -> web.Response:
        self._counts = Counts()
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
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stand_ins.tei", description=__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = TeiStandIn(MODES[options.mode]).app()
    web.run_app(app, host="127.0.0.1", port=options.port, print=None, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
