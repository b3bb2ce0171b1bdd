"""Authentication: a Bearer token, or for the webhook a signature over the raw body.

No I/O, no parsing.
"""

import enum
import hashlib
import hmac
import re

from shared.service.settings import Secret

_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE | re.ASCII)
_BEARER = re.compile(r"bearer[ \t]+(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)


class Verdict(enum.StrEnum):
    """The result of a check: allowed, or the reason for a 401."""

    ALLOWED = "allowed"
    MISSING = "missing credentials"  # neither a token nor a signature was sent
    WRONG_TOKEN = "wrong token"  # noqa: S105 (a reason, not a token)
    # A signature that is present must be right, whatever the token.
    WRONG_SIGNATURE = "wrong signature"


class Authenticator:
    """Checks credentials in constant time. A secret that is not set matches nothing."""

    def __init__(self, api_secret: Secret, hmac_secret: Secret) -> None:
        # Digests have one length, so that a comparison reveals nothing about the length of the
        # secret.
        self._token_digest = hashlib.sha256(_encode(api_secret)).digest() if api_secret else None
        self._hmac_key = _encode(hmac_secret) if hmac_secret else None

    def check_bearer(self, authorization: str | None) -> Verdict:
        """Check the `Authorization` header, for every route under /api but the webhook."""
        if not authorization:
            return Verdict.MISSING
        match = _BEARER.fullmatch(authorization.strip())
        if not match or self._token_digest is None:
            return Verdict.WRONG_TOKEN
        digest = hashlib.sha256(_encode(match[1])).digest()
        return (
            Verdict.ALLOWED
            if hmac.compare_digest(digest, self._token_digest)
            else Verdict.WRONG_TOKEN
        )

    def check_webhook_headers(self, authorization: str | None, signature: str | None) -> Verdict:
        """Check the headers of a webhook before its body is read.

        A token that is present must be right.

        Without a token, the signature (`X-Firecrawl-Signature`) must be well-formed. The caller
        then calls `check_signature` with the body.
        """
        if signature is None or _is_bearer(authorization):
            return self.check_bearer(authorization)
        return (
            Verdict.ALLOWED if _SIGNATURE.fullmatch(signature.strip()) else Verdict.WRONG_SIGNATURE
        )

    def check_signature(self, signature: str, body: bytes) -> Verdict:
        """Check the signature of a body as received. Hashes all of it: about 0.1 s for 64 MiB."""
        return Verdict.ALLOWED if self._is_signed(signature, body) else Verdict.WRONG_SIGNATURE

    def _is_signed(self, signature: str, body: bytes) -> bool:
        match = _SIGNATURE.fullmatch(signature.strip())
        if not match or self._hmac_key is None:
            return False
        return hmac.compare_digest(
            hmac.digest(self._hmac_key, body, "sha256").hex(), match[1].lower()
        )


def _is_bearer(authorization: str | None) -> bool:
    return authorization is not None and _BEARER.fullmatch(authorization.strip()) is not None


def _encode(text: str) -> bytes:
    # aiohttp and os.environ both keep bytes that are not UTF-8 as lone surrogates, so equal bytes
    # stay equal.
    return text.encode("utf-8", "surrogatepass")
