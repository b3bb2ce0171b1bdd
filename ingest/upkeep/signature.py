"""Signatures of completion webhooks, as Standard Webhooks specifies them (standardwebhooks.com).

Pure. The key is not that of the webhooks that come in: a receiver that can verify could otherwise
make webhooks that ingest accepts.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

from shared.service.errors import ConfigurationError
from shared.service.settings import IngestSettings, Secret, check_secret

_NAME = "WEBHOOK_CALLBACK_SECRET"
_PREFIX = "whsec_"  # before the key in base64; without it, the text is the key


def check_callback_secret(settings: IngestSettings, *, test_mode: bool) -> None:
    """Raise ConfigurationError for a secret that is weak, malformed, or used for something else.

    Without a secret, completion webhooks are not signed.
    """
    secret = settings.callback_secret
    if not secret:
        return
    check_secret(_NAME, secret, test_mode=test_mode)
    key = signing_key(secret)
    others = {"WEBHOOK_SECRET": settings.secret, "WEBHOOK_API_SECRET": settings.api_secret}
    for name, other in others.items():
        if other and (other == secret or _encode(other) == key):
            raise ConfigurationError(
                f"{_NAME} is equal to {name}: set another value, because the receivers of "
                "completion webhooks know it"
            )


def signing_key(secret: Secret) -> bytes:
    """The key that a secret stands for. Raises ConfigurationError."""
    if not secret.startswith(_PREFIX):
        return _encode(secret)
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ConfigurationError(f"{_NAME} has no base64 after `{_PREFIX}`: {error}") from error


def signature_headers(
    key: bytes, webhook_id: str, timestamp: int, body: bytes
) -> Mapping[str, str]:
    """The headers of one delivery; an empty key signs nothing. `timestamp`: seconds since 1970."""
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp)}
    if key:
        signed = f"{webhook_id}.{timestamp}.".encode() + body
        digest = hmac.digest(key, signed, "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
