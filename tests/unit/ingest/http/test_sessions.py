"""Sessions of the page: sign-in, authorisation, and requests that another site makes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ingest.http.app import make_app
from ingest.http.routes.dashboard import Dashboard
from ingest.http.sessions import LIFETIME, Sessions
from shared.service.auth import Authenticator
from shared.service.http import problem_middleware
from shared.service.routes import add_routes
from shared.service.settings import Secret

SECRET = Secret("s" * 32)
OWN = {"X-Requested-With": "millstream"}

Client = TestClient[web.Request, web.Application]


class Clock:
    """Seconds that a test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    """An ingest with the page and one route of the API, which tells the method that reached it."""

    async def touch(request: web.Request) -> web.Response:
        return web.Response(text=request.method)

    sessions = Sessions(SECRET)
    authenticator = Authenticator(SECRET, Secret())
    app = make_app(authenticator, sessions, 1024)
    app.middlewares.insert(0, problem_middleware)
    add_routes(app, Dashboard(authenticator, sessions))
    app.router.add_route("*", "/api/thing", touch)
    async with TestClient(TestServer(app)) as running:
        yield running


async def sign_in(client: Client, secret: str = SECRET, **headers: str) -> int:
    async with client.post(
        "/session", data={"secret": secret}, headers=headers, allow_redirects=False
    ) as answer:
        return answer.status


def test_a_session_lasts_for_its_lifetime() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, clock)
    value = sessions.make()
    assert sessions.is_valid(value)
    assert Sessions(SECRET, clock).is_valid(value), "another process with the same secret takes it"
    clock.now += LIFETIME - 1
    assert sessions.is_valid(value)
    clock.now += 1
    assert not sessions.is_valid(value)


def test_no_two_sessions_are_alike() -> None:
    sessions = Sessions(SECRET)
    assert sessions.make() != sessions.make()


@pytest.mark.parametrize(
    "value", ["", ".", "..", "9999999999.x.", "9999999999.x." + "0" * 64, "\udcff.\u00e9.\udcff"]
)
def test_an_unsigned_value_is_not_a_session(value: str) -> None:
    assert not Sessions(SECRET).is_valid(value)


def test_a_session_with_another_secret_or_a_changed_expiry_is_invalid() -> None:
    value = Sessions(SECRET).make()
    end, _, rest = value.partition(".")
    assert not Sessions(Secret("t" * 32)).is_valid(value)
    assert not Sessions(SECRET).is_valid(f"{int(end) + 1}.{rest}")


def test_without_a_secret_there_are_no_sessions() -> None:
    sessions = Sessions(Secret())
    assert not sessions.is_valid(sessions.make())


async def test_the_page_is_a_sign_in_form_without_a_session(client: Client) -> None:
    assert 'name="secret"' in await (await client.get("/")).text()
    assert (await client.get("/api/thing")).status == 401
    assert await sign_in(client) == 303
    assert "Dead letters" in await (await client.get("/")).text()
    assert (await client.get("/api/thing")).status == 200


async def test_a_wrong_secret_starts_no_session(client: Client) -> None:
    assert await sign_in(client, "wrong") == 401
    assert await sign_in(client, "") == 401
    assert (await client.get("/api/thing")).status == 401


async def test_the_cookie_is_http_only_and_same_site(client: Client) -> None:
    answer = await client.post("/session", data={"secret": SECRET}, allow_redirects=False)
    flags = answer.headers["Set-Cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=Strict" in flags
    assert "Secure" not in flags
    proxied = {"X-Forwarded-Proto": "https"}
    answer = await client.post(
        "/session", data={"secret": SECRET}, headers=proxied, allow_redirects=False
    )
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Requested-With": "XMLHttpRequest"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "same-site"},
        {**OWN, "Origin": "https://elsewhere.example"},
        {**OWN, "Origin": "null"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
async def test_a_session_does_not_authorise_changes_from_another_site(
    client: Client, method: str, headers: dict[str, str]
) -> None:
    await sign_in(client)
    assert (await client.request(method, "/api/thing", headers=headers)).status == 403


async def test_a_session_authorises_changes_from_the_page(client: Client) -> None:
    await sign_in(client)
    here = f"http://{client.host}:{client.port}"
    for headers in (
        OWN,
        {**OWN, "Origin": here},
        {**OWN, "Sec-Fetch-Site": "same-origin", "Origin": here},
    ):
        assert await (await client.post("/api/thing", headers=headers)).text() == "POST"


async def test_a_token_works_from_any_site_and_a_session_does_not_replace_a_wrong_one(
    client: Client,
) -> None:
    right, wrong = {"Authorization": f"Bearer {SECRET}"}, {"Authorization": "Bearer wrong"}
    assert (await client.post("/api/thing", headers=right)).status == 200
    await sign_in(client)
    assert (await client.post("/api/thing", headers=wrong | OWN)).status == 401


async def test_another_site_can_neither_sign_in_nor_out(client: Client) -> None:
    assert await sign_in(client, Origin="https://elsewhere.example") == 403
    assert await sign_in(client) == 303
    assert (await client.delete("/session", headers={"Sec-Fetch-Site": "cross-site"})).status == 403
    assert (await client.get("/api/thing")).status == 200
    assert (await client.delete("/session")).status == 204
    assert (await client.get("/api/thing")).status == 401


async def test_an_oversized_sign_in_form_is_refused(client: Client) -> None:
    assert await sign_in(client, "s" * 10_000) == 413


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/static/page.css"])
async def test_the_page_forbids_foreign_scripts_and_frames(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "page.html", "..%2fdashboard.py", "%2e%2e/app.py"])
async def test_only_files_of_the_page_are_served(client: Client, name: str) -> None:
    assert (await client.get(f"/static/{name}")).status == 404


async def test_scripts_and_styles_have_their_types(client: Client) -> None:
    for name, content_type in (
        ("main.js", "text/javascript"),
        ("page.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ):
        assert (await client.get(f"/static/{name}")).content_type == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded; charset=no-such",
        "application/x-www-form-urlencoded; charset=utf-16",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "nonsense",
    ],
)
async def test_a_form_that_cannot_be_read_is_a_wrong_secret(
    client: Client, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    async with client.post("/session", data=b"secret=\xff\xfe", headers=headers) as answer:
        assert answer.status == 401


async def test_a_form_that_is_sent_too_slowly_is_408() -> None:
    sessions, authenticator = Sessions(SECRET), Authenticator(SECRET, Secret())
    app = make_app(authenticator, sessions, 1024)
    app.middlewares.insert(0, problem_middleware)
    add_routes(app, Dashboard(authenticator, sessions, form_seconds=0.05))
    async with TestClient(TestServer(app)) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsecret=")
        async with asyncio.timeout(30):
            assert b"408" in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_ten_wrong_secrets_in_a_minute_close_the_sign_in_for_their_address() -> None:
    sessions, authenticator, clock = Sessions(SECRET), Authenticator(SECRET, Secret()), Clock()
    app = make_app(authenticator, sessions, 1024)
    app.middlewares.insert(0, problem_middleware)
    add_routes(app, Dashboard(authenticator, sessions, clock=clock))
    async with TestClient(TestServer(app)) as client:
        assert [await sign_in(client, "wrong") for _ in range(11)] == [401] * 10 + [429]
        assert await sign_in(client) == 429
        clock.now += 60
        assert await sign_in(client) == 303
