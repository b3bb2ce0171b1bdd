"""Requests go to listed servers only, and each key to its own server only."""

import msgspec
import pytest

from shared.service.errors import ConfigurationError
from shared.service.settings import Secret, TeiSettings, load
from shared.tei.allowed import TeiServer, allowed_servers, own_servers

SETTINGS = TeiSettings(
    tei_url="http://a:80/path, https://b",
    search_tei_url="http://queries:80",
    tei_allowed="any-port, one-port:8080, [::1]:80",
    tei_api_key=Secret("common"),
    tei_host_keys=Secret("one-port:8080=own,one-port:8080=next=,b=of-b"),
)


class Settings(msgspec.Struct, frozen=True):
    tei: TeiSettings


def keys(url: str) -> list[str]:
    (server,) = allowed_servers(SETTINGS, url)
    assert server.url == url
    return list(server.keys)


@pytest.mark.parametrize(
    "url", ["http://a", "http://a:80/other", "http://queries", "http://A:80", "http://u:p@a"]
)
def test_the_servers_of_the_settings_are_allowed_and_get_the_common_key(url: str) -> None:
    assert keys(url) == ["common"]


@pytest.mark.parametrize("url", ["http://any-port", "https://any-port:9/x", "http://[::1]:80"])
def test_a_listed_host_gets_no_key_that_is_not_its_own(url: str) -> None:
    assert keys(url) == []


def test_the_keys_of_a_host_are_tried_in_order() -> None:
    assert keys("http://one-port:8080") == ["own", "next="]
    assert keys("https://b") == ["of-b"]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "http://a:81",
        "https://a:80",
        "http://one-port",
        "http://[::1]:81",
        "http://a:80@evil",
        "http://a.evil",
        "http://evil/a:80",
        "http://evil#@a:80",
        "http://evil?@a:80",
        "http://evil\\@a:80/",
        "http://a:80,http://evil",
        "http://:80",
        "http://a:port",
        "a:80",
    ],
)
def test_every_other_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not allowed|no usable address"):
        allowed_servers(SETTINGS, url)


def test_the_servers_of_the_settings_need_no_list() -> None:
    assert own_servers(SETTINGS, "http://a:80, https://b") == [
        TeiServer(url="http://a:80", keys=(Secret("common"),)),
        TeiServer(url="https://b", keys=(Secret("of-b"),)),
    ]


@pytest.mark.parametrize("value", ["no-key", "=key", "host=", "a=1,b"])
def test_a_malformed_list_of_keys_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST:PORT=KEY") as refused:
        load(Settings, {"WEBHOOK_TEI_HOST_KEYS": value})
    assert f"{value!r}" not in str(refused.value)


@pytest.mark.parametrize("value", ["http://a:80", "a b", "a,,b", "a:port", "*"])
def test_a_malformed_list_of_hosts_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_TEI_ALLOWED"):
        load(Settings, {"WEBHOOK_TEI_ALLOWED": value})
