import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.service.auth import Authenticator, Verdict
from shared.service.settings import Secret

TOKEN = "t" * 32
KEY = "k" * 32
BODY = b'{"success":true}'

authenticator = Authenticator(Secret(TOKEN), Secret(KEY))
headers = (
    st.none() | st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)


def signature(body: bytes = BODY, key: str = KEY) -> str:
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def judge(
    authorization: str | None, sent: str | None, body: bytes, judges: Authenticator = authenticator
) -> Verdict:
    """Both checks of a webhook, one after the other."""
    verdict = judges.check_webhook_headers(authorization, sent)
    return (
        judges.check_signature(sent, body)
        if verdict is Verdict.ALLOWED and sent is not None
        else verdict
    )


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"  BEARER {TOKEN} "])
def test_the_right_token_is_allowed_however_the_scheme_is_written(header: str) -> None:
    assert authenticator.check_bearer(header) is Verdict.ALLOWED


@pytest.mark.parametrize(
    "header",
    [
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \udcff",
        "Bearer é",
    ],
)
def test_any_other_token_is_wrong(header: str) -> None:
    assert authenticator.check_bearer(header) is Verdict.WRONG_TOKEN


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_is_missing_credentials(header: str | None) -> None:
    assert authenticator.check_bearer(header) is Verdict.MISSING
    assert judge(header, None, BODY) is Verdict.MISSING


def test_for_the_webhook_a_token_or_a_signature_suffices() -> None:
    assert judge(f"Bearer {TOKEN}", None, BODY) is Verdict.ALLOWED
    assert judge(None, signature(), BODY) is Verdict.ALLOWED
    assert judge("Basic YTpi", signature(), BODY) is Verdict.ALLOWED


def test_a_token_that_is_present_must_be_right_whatever_the_signature() -> None:
    assert authenticator.check_webhook_headers("Bearer wrong", signature()) is Verdict.WRONG_TOKEN


@pytest.mark.parametrize("sent", ["", "nonsense", "sha256=" + "0" * 63])
def test_what_is_no_signature_is_refused_before_there_is_a_body(sent: str) -> None:
    assert authenticator.check_webhook_headers(None, sent) is Verdict.WRONG_SIGNATURE


def test_hex_digits_and_algorithm_are_taken_in_any_case() -> None:
    assert judge(None, signature().upper(), BODY) is Verdict.ALLOWED


@pytest.mark.parametrize(
    "wrong",
    ["", "sha256=", signature()[7:], signature(key="other"), signature(b"other"), signature() + "0",
     signature().replace("sha256", "sha1"), "sha256=" + "é" * 64, "\udcff"],
)  # fmt: skip
def test_a_signature_that_is_present_must_be_right_whatever_the_token(wrong: str) -> None:
    assert judge(f"Bearer {TOKEN}", wrong, BODY) is Verdict.WRONG_SIGNATURE


def test_the_signature_is_over_the_raw_bytes() -> None:
    assert judge(None, signature(BODY), BODY + b" ") is Verdict.WRONG_SIGNATURE


def test_a_signature_opens_no_other_route() -> None:
    assert authenticator.check_bearer(signature()) is Verdict.WRONG_TOKEN


def test_a_secret_that_is_not_set_allows_nobody() -> None:
    nobody = Authenticator(Secret(""), Secret(""))
    assert nobody.check_bearer("Bearer ") is Verdict.WRONG_TOKEN
    assert judge(None, signature(key=""), BODY, nobody) is Verdict.WRONG_SIGNATURE


def test_a_token_that_is_not_ascii_works() -> None:
    secret = "ключ" * 10
    assert (
        Authenticator(Secret(secret), Secret(KEY)).check_bearer(f"Bearer {secret}")
        is Verdict.ALLOWED
    )


@settings(deadline=None)
@given(headers, headers, st.binary())
def test_no_header_raises_or_opens_the_door(
    authorization: str | None, sent: str | None, body: bytes
) -> None:
    assert authenticator.check_bearer(authorization) is not Verdict.ALLOWED
    assert judge(authorization, sent, body) is not Verdict.ALLOWED
