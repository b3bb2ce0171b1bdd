"""TEI's routes over an engine: authentication, parsing, limits, and errors as TEI words them."""

import hmac
import time
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from local.tei import batch, contract
from local.tei.contract import (
    EmbedRequest,
    ErrorBody,
    ErrorType,
    Info,
    Limits,
    TeiError,
    TokenizeRequest,
)
from local.tei.counters import Counters, Permits
from local.tei.engine import Embeddings, Engine

PUBLIC_PATHS = frozenset({"/", "/health", "/ping", "/metrics"})

T = TypeVar("T")


def build_app(
    engine: Engine, info: Info, limits: Limits, api_key: str | None = None
) -> web.Application:
    """The application; run it with `handler_cancellation`, so that a closed connection frees its
    permits.
    """
    service = _Service(engine, info, limits)
    middlewares: list[Middleware] = [_authentication(api_key)] if api_key else []
    middlewares.append(service.answer_errors)
    app = web.Application(client_max_size=limits.max_payload_bytes, middlewares=middlewares)
    app.router.add_post("/embed", service.embed)
    app.router.add_post("/tokenize", service.tokenize)
    app.router.add_get("/info", service.info)
    app.router.add_get("/metrics", service.metrics)
    for path in ("/", "/health", "/ping"):
        app.router.add_get(path, service.health)
    return app


class _Service:
    def __init__(self, engine: Engine, info: Info, limits: Limits) -> None:
        self._engine = engine
        self._info = msgspec.json.encode(info)
        self._limits = limits
        self._counters = Counters()
        self._permits = Permits(limits.max_concurrent_requests, self._counters)
        self._embed_decoder = msgspec.json.Decoder(EmbedRequest)
        self._tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)

    async def embed(self, request: web.Request) -> web.Response:
        body = await _decode(request, self._embed_decoder)
        self._counters.requests.labels(body.method).inc()
        started = time.monotonic()
        answer, embeddings = await self._embed(body)
        self._counters.successes.labels(body.method).inc()
        response = _json(answer)
        response.headers.update(_timing(embeddings, time.monotonic() - started))
        return response

    async def _embed(self, body: EmbedRequest) -> tuple[bytes, Embeddings]:
        texts = contract.input_list(body.inputs)
        self._limits.check_batch(len(texts))
        with self._permits.take(len(texts)):
            contract.check_prompt_name(body.prompt_name)
            batch.check_dimensions(body.dimensions, batch.DIMENSION)
            embeddings = await self._engine.embed(texts, body.truncation)
        self._counters.embedded.inc(len(texts))
        self._counters.tokens.inc(embeddings.tokens)
        vectors = batch.finish(embeddings.vectors, body.dimensions, normalize=body.normalize)
        return msgspec.json.encode(batch.short_floats(vectors)), embeddings

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await _decode(request, self._tokenize_decoder)
        texts = contract.input_list(body.inputs)
        self._limits.check_batch(len(texts))
        contract.check_prompt_name(body.prompt_name)
        tokens = await self._engine.tokenize(texts, special=body.add_special_tokens)
        return _json(msgspec.json.encode(tokens))

    async def info(self, _request: web.Request) -> web.Response:
        return _json(self._info)

    async def health(self, _request: web.Request) -> web.Response:
        if not await self._engine.is_healthy():
            raise TeiError(ErrorType.UNHEALTHY, "unhealthy")
        return web.Response()

    async def metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._counters.registry)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    @web.middleware
    async def answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """TeiError to TEI's body and status, counted by type."""
        try:
            return await handler(request)
        except TeiError as error:
            self._counters.failures.labels(error.error_type.lower()).inc()
            body = msgspec.json.encode(ErrorBody(str(error), error.error_type))
            return _json(body, status=error.error_type.status)


def _authentication(api_key: str) -> Middleware:
    """Middleware: every route but the public ones wants the key; the refusal has no body."""
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        if request.path in PUBLIC_PATHS or hmac.compare_digest(given, expected):
            return await handler(request)
        return web.Response(status=401)

    return middleware


async def _decode(request: web.Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The body of a request; what cannot be read is refused in plain text, as axum does for TEI."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(
            text="Expected request with `Content-Type: application/json`"
        )
    try:
        body = await request.read()
        return decoder.decode(body)
    except web.HTTPRequestEntityTooLarge as error:
        error.text = "Failed to buffer the request body: length limit exceeded"
        raise
    except msgspec.ValidationError as error:
        reason = f"Failed to deserialize the JSON body into the target type: {error}"
        raise web.HTTPUnprocessableEntity(text=reason) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(
            text=f"Failed to parse the request body as JSON: {error}"
        ) from error


def _timing(embeddings: Embeddings, total_s: float) -> dict[str, str]:
    """The headers by which TEI says what its time went into, in whole milliseconds."""
    seconds = {
        "x-total-time": total_s,
        "x-tokenization-time": embeddings.tokenization_s,
        "x-queue-time": embeddings.queue_s,
        "x-inference-time": embeddings.inference_s,
    }
    return {name: str(round(1000 * value)) for name, value in seconds.items()}


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
