"""The Qdrant client, the handshake, and what exceptions mean to the rest of the code. No queries
here.

Qdrant's HTTP statuses fall into three kinds: Qdrant is unavailable (wait), the collection is
missing (the store was lost, or nothing was ever indexed), or it refuses this very request (bisect
it).
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import structlog
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexer.qdrant.release import Release, parse_release, refusal_of, shortcoming_of
from shared.service.errors import ConfigurationError, DependencyError, MillstreamError
from shared.service.http import UNCOMPRESSED
from shared.service.settings import QdrantSettings

log = structlog.get_logger()

MAX_CONNECTIONS = 20
_HANDSHAKE_S = 5.0  # then the process starts without; it waits for Qdrant while it runs
MAX_REASON_CHARACTERS = 500

# Statuses that say nothing about the request's content: wrong key, time-out, too many requests.
_NOT_THE_REQUEST = frozenset({401, 403, 408, 429})


class MissingCollectionError(DependencyError):
    """The collection does not exist. For a reader nothing is indexed yet; for a writer the store
    was lost.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("qdrant", reason)


class UnsupportedReleaseError(DependencyError):
    """The server is too old to be used."""

    def __init__(self, reason: str) -> None:
        super().__init__("qdrant", reason)


class RefusedError(MillstreamError):
    """Qdrant is healthy and refuses this request for its content (400, 413, 422 ...); a part of it
    may pass.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"qdrant refused the request with {status}: {reason}")
        self.status = status
        self.reason = reason


Observe = Callable[[str, float], None]

# By method and the end of the path; what is not here is seldom, and is `other`.
_OPERATIONS = {
    ("PUT", "points"): "upsert",
    ("POST", "points"): "retrieve",
    ("POST", "delete"): "delete",
    ("POST", "query"): "query",
    ("POST", "batch"): "query",
    ("POST", "scroll"): "scroll",
    ("POST", "count"): "count",
}


def make_client(settings: QdrantSettings, observe: Observe | None = None) -> AsyncQdrantClient:
    """A REST client; opens no connection. The caller closes it.

    `observe` gets the operation and the seconds of each request, also of one that failed.
    """
    # The client switches keep-alive off for localhost unless it is given limits.
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
    )
    # As a header: the client warns about `api_key=` over plain http, the usual case inside a
    # cluster.
    key = {"api-key": str(settings.qdrant_api_key)} if settings.qdrant_api_key else {}
    return AsyncQdrantClient(
        url=settings.qdrant_url,
        headers={**UNCOMPRESSED, **key},
        prefer_grpc=False,
        timeout=math.ceil(settings.qdrant_timeout),
        limits=limits,
        check_compatibility=False,  # it would send a request from a thread of its own
        trust_env=False,  # a proxy for the internet must not get requests to the database
        transport=_TimedTransport(limits, observe) if observe else None,
    )


class _TimedTransport(httpx.AsyncHTTPTransport):
    """Times requests until the head of their answer."""

    def __init__(self, limits: httpx.Limits, observe: Observe) -> None:
        super().__init__(limits=limits, trust_env=False)
        self._observe = observe

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        started = time.perf_counter()
        try:
            return await super().handle_async_request(request)
        finally:
            operation = _OPERATIONS.get(
                (request.method, request.url.path.rpartition("/")[2]), "other"
            )
            self._observe(operation, time.perf_counter() - started)


@contextlib.contextmanager
def qdrant_errors() -> Iterator[None]:
    """Translate what the client raises inside the block.

    DependencyError: no connection, time-out, unreadable answer, 5xx, 401, 403, 408, 429.
    MissingCollectionError (a DependencyError): 404. RefusedError: every other 4xx.
    """
    try:
        yield
    except UnexpectedResponse as error:
        raise _meaning_of(error) from error
    except ResponseHandlingException as error:
        source = error.source
        raise DependencyError(
            "qdrant", f"{type(source).__name__}: {source}"[:MAX_REASON_CHARACTERS]
        ) from error
    except QdrantException as error:  # 429 with Retry-After
        raise DependencyError("qdrant", str(error)) from error


@contextlib.contextmanager
def search_errors() -> Iterator[None]:
    """As `qdrant_errors`, for what a search reads: a refused request is a DependencyError as well.

    A read has no parts of which one may pass, and a search that is sent later may.
    """
    try:
        with qdrant_errors():
            yield
    except RefusedError as error:
        raise DependencyError(
            "qdrant", f"it refuses a request of the search with {error.status}: {error.reason}"
        ) from error


async def read_release(client: AsyncQdrantClient) -> Release | None:
    """The server's release, None if its version cannot be read.

    Raises DependencyError if Qdrant is unavailable, UnsupportedReleaseError (one of them) if it is
    too old.
    """
    with qdrant_errors():
        version = (await client.info()).version
    if refusal := refusal_of(version):
        raise UnsupportedReleaseError(refusal)
    return parse_release(version)


async def handshake(client: AsyncQdrantClient) -> None:
    """Look at the server before the process starts. Raises ConfigurationError for one that is too
    old.

    A server that does not answer within 5 s is not an error: documents wait for it.
    """
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            with qdrant_errors():
                version = (await client.info()).version
    except (DependencyError, TimeoutError) as error:
        log.warning(
            "Qdrant not reached at the start",
            error=str(error) or f"no answer within {_HANDSHAKE_S:g} s",
        )
        return
    if refusal := refusal_of(version):
        raise ConfigurationError(f"{refusal}, or point WEBHOOK_QDRANT_URL to another server")
    if shortcoming := shortcoming_of(version):
        log.warning("Qdrant release is old", version=version, reason=shortcoming)


def check_qdrant(client: AsyncQdrantClient) -> Callable[[], Awaitable[None]]:
    """A health check: raises DependencyError if Qdrant is unavailable or too old."""

    async def check() -> None:
        await read_release(client)

    return check


def _meaning_of(error: UnexpectedResponse) -> MillstreamError:
    status = error.status_code or 500
    reason = error.content.decode(errors="replace")[:MAX_REASON_CHARACTERS]
    if status == 404:
        return MissingCollectionError(reason)
    if status >= 500 or status in _NOT_THE_REQUEST or status < 400:
        return DependencyError("qdrant", f"{status} {reason}")
    return RefusedError(status, reason)
