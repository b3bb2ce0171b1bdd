"""Sessions of the page: after sign-in with the API secret, a cookie replaces it for some hours.

Nothing is stored.

The cookie is signed with a key derived from the secret: every ingest process accepts it, and a new
secret ends all sessions. A browser also sends cookies with requests that another site makes, so a
request that changes something must prove that the page made it.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

from shared.service.settings import Secret

COOKIE = "millstream_session"
LIFETIME = 12 * 3600  # seconds
_SAFE_METHODS = frozenset({"GET", "HEAD"})
# Another site cannot send it without a CORS preflight.
_OWN_HEADER = ("X-Requested-With", "millstream")


class Sessions:
    """Creates and checks session cookies. Without a secret there are no sessions."""

    def __init__(self, secret: Secret, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(_bytes(secret), b"millstream session", "sha256")
        self._is_possible = bool(secret)
        self._clock = clock

    def make(self) -> str:
        """Create the value of a cookie."""
        claim = f"{int(self._clock()) + LIFETIME}.{secrets.token_urlsafe(16)}"
        return f"{claim}.{self._sign(claim)}"

    def is_valid(self, value: str) -> bool:
        """Whether this is the value of a session that has not expired."""
        claim, _, signature = value.rpartition(".")
        if not self._is_possible or not hmac.compare_digest(
            _bytes(signature), _bytes(self._sign(claim))
        ):
            return False
        return int(claim.partition(".")[0]) > self._clock()

    def has(self, request: web.Request) -> bool:
        """Whether the request has a valid session."""
        return self.is_valid(request.cookies.get(COOKIE, ""))

    def _sign(self, claim: str) -> str:
        return hmac.digest(self._key, _bytes(claim), "sha256").hex()


def is_own(request: web.Request) -> bool:
    """Whether a request with a cookie was made by the page, and not by another site."""
    if request.method in _SAFE_METHODS:
        return True
    name, value = _OWN_HEADER
    return request.headers.get(name) == value and comes_from_here(request)


def comes_from_here(request: web.Request) -> bool:
    """Whether the browser reports that a page of this host made the request."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _bytes(text: str) -> bytes:
    # aiohttp keeps bytes that are not UTF-8 as lone surrogates.
    return text.encode("utf-8", "surrogatepass")
