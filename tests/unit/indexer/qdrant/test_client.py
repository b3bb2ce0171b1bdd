import httpx
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import PointStruct

from indexer.qdrant.client import MissingCollectionError, RefusedError, make_client, qdrant_errors
from shared.service.errors import DependencyError
from shared.service.settings import QdrantSettings, Seconds, Secret


def unexpected(status: int, content: bytes = b"why") -> UnexpectedResponse:
    return UnexpectedResponse(status, "phrase", content, httpx.Headers())


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_status_about_the_content_is_a_refusal(status: int) -> None:
    with pytest.raises(RefusedError, match="why") as caught, qdrant_errors():
        raise unexpected(status)
    assert caught.value.status == status


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 507, 301, None])
def test_a_status_that_says_nothing_about_the_content_is_qdrants_fault(status: int | None) -> None:
    with pytest.raises(DependencyError, match="why") as caught, qdrant_errors():
        raise UnexpectedResponse(status, "phrase", b"why", httpx.Headers())
    assert caught.value.service == "qdrant"
    assert not isinstance(caught.value, MissingCollectionError)


def test_a_missing_collection_is_told_apart() -> None:
    with pytest.raises(MissingCollectionError, match="doesn't exist"), qdrant_errors():
        raise unexpected(404, b"Collection `x` doesn't exist!")


def test_a_failed_connection_is_named() -> None:
    with pytest.raises(DependencyError, match="ReadTimeout: slow"), qdrant_errors():
        raise ResponseHandlingException(httpx.ReadTimeout("slow"))


def test_too_many_requests_with_a_time_to_wait_is_qdrants_fault() -> None:
    with pytest.raises(DependencyError, match="busy"), qdrant_errors():
        raise ResourceExhaustedResponse("busy", 3)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyError), qdrant_errors():
        raise KeyError("a bug")


async def test_a_client_keeps_connections_and_has_the_key_and_the_time_limit() -> None:
    settings = QdrantSettings(qdrant_api_key=Secret("k" * 32), qdrant_timeout=Seconds(7.5))
    client = make_client(settings)
    try:
        rest = client.http.client._async_client
        assert isinstance(rest._transport, httpx.AsyncHTTPTransport)
        pool = rest._transport._pool
        assert rest.headers["api-key"] == "k" * 32
        assert rest.timeout.read == 8
        assert (pool._max_connections, pool._max_keepalive_connections) == (20, 20)
        assert rest.trust_env is False
    finally:
        await client.close()


async def test_a_server_that_does_not_listen_is_a_dependency_error(unused_tcp_port: int) -> None:
    client = make_client(QdrantSettings(qdrant_url=f"http://127.0.0.1:{unused_tcp_port}"))
    try:
        with pytest.raises(DependencyError, match="ConnectError"), qdrant_errors():
            await client.get_collections()
    finally:
        await client.close()


async def test_requests_are_timed_by_operation_also_those_that_fail(unused_tcp_port: int) -> None:
    seen: list[tuple[str, float]] = []
    settings = QdrantSettings(qdrant_url=f"http://127.0.0.1:{unused_tcp_port}")
    client = make_client(settings, lambda operation, seconds: seen.append((operation, seconds)))
    calls = (
        client.upsert("c", [PointStruct(id=1, vector=[1.0])]),
        client.delete("c", [1]),
        client.retrieve("c", [1]),
    )
    for call in (*calls, client.query_points("c"), client.info()):
        with pytest.raises(DependencyError), qdrant_errors():
            await call
    await client.close()
    assert [operation for operation, _ in seen] == [
        "upsert",
        "delete",
        "retrieve",
        "query",
        "other",
    ]
    assert all(seconds > 0 for _, seconds in seen)
