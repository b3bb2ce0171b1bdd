"""Settings from the environment."""

import msgspec
import pytest

from shared.service.errors import ConfigurationError
from shared.service.settings import (
    IngestSettings,
    RuntimeSettings,
    Secret,
    TeiSettings,
    check_secret,
    known_variables,
    load,
    retired_variables,
    seconds_of,
)


class Settings(msgspec.Struct, frozen=True):
    runtime: RuntimeSettings
    tei: TeiSettings
    ingest: IngestSettings


def test_defaults_hold_where_nothing_is_set() -> None:
    settings = load(Settings, {"PATH": "/bin"})
    assert settings.runtime == RuntimeSettings()
    assert settings.ingest.ingest_port is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("120.0", 120),
        ("30s", 30),
        ("10m", 600),
        ("24h", 86400),
        ("250ms", 0.25),
        ("30d", 2592000),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert load(Settings, {"WEBHOOK_LEASE": text}).runtime.lease == seconds


@pytest.mark.parametrize("text", ["", "ten", "5 minutes", "-1", "1m30s", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds_of(text)


def test_an_empty_variable_means_not_set() -> None:
    assert load(Settings, {"WEBHOOK_LEASE": "", "WEBHOOK_INGEST_PORT": ""}) == load(Settings, {})


def test_one_setting_has_no_prefix() -> None:
    assert load(Settings, {"TEI_MAX_CONCURRENT_REQUESTS": "7"}).tei.max_concurrent_requests == 7


def test_an_unknown_name_stops_the_start_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigurationError, match="WEBHOOK_LEESE is not a setting; did you mean WEBHOOK_LEASE"
    ):
        load(Settings, {"WEBHOOK_LEESE": "30s"})


def test_a_setting_of_another_service_is_known() -> None:
    assert "WEBHOOK_QDRANT_URL" in known_variables()
    load(Settings, {"WEBHOOK_QDRANT_URL": "http://127.0.0.1:1"})


def test_a_wrong_value_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_STAGE_CONCURRENCY"):
        load(Settings, {"WEBHOOK_STAGE_CONCURRENCY": "many"})


def test_a_retired_name_is_no_mistake() -> None:
    environ = {"WEBHOOK_BM25_INDEX_PATH": "/tmp/bm25"}
    load(Settings, environ)
    assert retired_variables(environ) == ["WEBHOOK_BM25_INDEX_PATH"]


def test_a_secret_does_not_show_itself() -> None:
    settings = load(Settings, {"WEBHOOK_API_SECRET": "very-secret-indeed"})
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_weak_secret_stops_the_start_but_not_in_test_mode(secret: str) -> None:
    check_secret("WEBHOOK_API_SECRET", Secret(secret), test_mode=True)
    with pytest.raises(ConfigurationError, match="WEBHOOK_API_SECRET"):
        check_secret("WEBHOOK_API_SECRET", Secret(secret), test_mode=False)
