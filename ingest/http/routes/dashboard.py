"""The page at `/`: sign-in, sign-out and its files. Its data come from the API."""

import html
import mimetypes
import time
from collections.abc import Callable
from importlib.resources import files
from urllib.parse import parse_qs

from aiohttp import web

from ingest.http.sessions import COOKIE, LIFETIME, Sessions, comes_from_here
from ingest.http.sign_ins import WrongSignIns
from ingest.http.stage_table import MODULE_NAME, tables_module
from shared.service.auth import Authenticator, Verdict
from shared.service.http import ProblemError, read_all
from shared.service.routes import route

_MAX_FORM_BYTES = 4096
_PAGES = ("page.html", "sign-in.html")

# Only files of the page are loaded and run, and no site may frame it.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # no release may use the files of another
}


class Dashboard:
    """Handlers of the page. Its files are read once, at the start."""

    def __init__(
        self,
        authenticator: Authenticator,
        sessions: Sessions,
        *,
        form_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`form_seconds` bounds the time to receive the form of a sign-in."""
        self._form_seconds = form_seconds
        self._wrong = WrongSignIns(clock)
        self._authenticator = authenticator
        self._sessions = sessions
        folder = files("ingest.http") / "static"
        self._files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
        self._files[MODULE_NAME] = tables_module()
        self._page, self._sign_in = (self._files.pop(name).decode() for name in _PAGES)

    @route("GET /", "The page", {200: str}, is_lenient=True, is_described=False)
    async def get_page(self, request: web.Request) -> web.Response:
        """The page, or without a session the sign-in form."""
        return self._answer(self._page) if self._sessions.has(request) else self._sign_in_form()

    @route(
        "GET /static/{name}", "A file of the page", {200: str}, is_lenient=True, is_described=False
    )
    async def get_file(self, _request: web.Request, name: str) -> web.Response:
        """A script, style or image of the page; open, since it holds no data."""
        if name not in self._files:
            raise ProblemError(404, "Not Found", f"there is no file {name[:64]!r}")
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        charset = None if content_type.startswith("image/") else "utf-8"
        return web.Response(
            body=self._files[name], content_type=content_type, charset=charset, headers=_HEADERS
        )

    @route("POST /session", "Sign in", {303: str}, is_lenient=True, is_described=False)
    async def post_session(self, request: web.Request) -> web.Response:
        """Sign in with the API secret. A wrong one is 401 and the form again."""
        if not comes_from_here(request):  # another site must not sign a user in
            raise ProblemError(
                403,
                "Forbidden",
                "sign-in from another site is not allowed: use the form of the page",
            )
        size = request.content_length
        if size is None or size > _MAX_FORM_BYTES:  # read before the credentials are checked
            raise web.HTTPRequestEntityTooLarge(_MAX_FORM_BYTES, size or 0)
        if self._wrong.are_too_many(request.remote):
            raise ProblemError(
                429,
                "Too Many Requests",
                "too many wrong secrets: wait a minute",
                {"Retry-After": "60"},
            )
        form = parse_qs((await read_all(request, self._form_seconds)).decode(errors="replace"))
        secret = form.get("secret", [""])[0]
        if self._authenticator.check_bearer(f"Bearer {secret}") is not Verdict.ALLOWED:
            self._wrong.note(request.remote)
            return self._sign_in_form("That is not the API secret.", status=401)
        response = web.Response(status=303, headers={**_HEADERS, "Location": "/"})
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(
            COOKIE,
            self._sessions.make(),
            max_age=LIFETIME,
            httponly=True,
            samesite="Strict",
            secure=is_secure,
        )
        return response

    @route("DELETE /session", "Sign out", {204: str}, is_lenient=True, is_described=False)
    async def delete_session(self, request: web.Request) -> web.Response:
        """Sign out."""
        if not comes_from_here(request):
            raise ProblemError(
                403,
                "Forbidden",
                "sign-out from another site is not allowed: use the button of the page",
            )
        response = web.Response(status=204, headers=_HEADERS)
        response.del_cookie(COOKIE, httponly=True, samesite="Strict")
        return response

    def _sign_in_form(self, error: str = "", status: int = 200) -> web.Response:
        return self._answer(self._sign_in.replace("{error}", html.escape(error)), status)

    def _answer(self, text: str, status: int = 200) -> web.Response:
        return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
