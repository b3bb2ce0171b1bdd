"""Signatures of completion webhooks, and the secrets that ingest refuses to sign with."""

import base64

import pytest

from ingest.upkeep.signature import check_callback_secret, signature_headers, signing_key
from shared.service.errors import ConfigurationError
from shared.service.settings import IngestSettings, Secret

KEY = "c" * 32
PREFIXED = "whsec_" + base64.b64encode(KEY.encode()).decode()


def settings(callback_secret: str) -> IngestSettings:
    return IngestSettings(
        callback_secret=Secret(callback_secret),
        secret=Secret("h" * 32),
        api_secret=Secret("a" * 32),
    )


def test_the_example_of_the_specification() -> None:
    key = signing_key(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    headers = signature_headers(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_key_nothing_is_signed() -> None:
    assert "webhook-signature" not in signature_headers(b"", "id", 1, b"{}")


def test_a_prefix_marks_a_key_in_base64() -> None:
    assert signing_key(Secret(PREFIXED)) == signing_key(Secret(KEY)) == KEY.encode()


@pytest.mark.parametrize("secret", ["", KEY, PREFIXED])
def test_no_secret_and_one_of_its_own_are_accepted(secret: str) -> None:
    check_callback_secret(settings(secret), test_mode=False)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("h" * 32, "equal to WEBHOOK_SECRET"),
        ("a" * 32, "equal to WEBHOOK_API_SECRET"),
        ("whsec_" + base64.b64encode(b"h" * 32).decode(), "equal to WEBHOOK_SECRET"),
        ("short", "too short"),
        ("whsec_" + "?" * 40, "no base64"),
    ],
)
def test_a_secret_with_another_use_or_a_weak_one_is_refused(secret: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_callback_secret(settings(secret), test_mode=False)
