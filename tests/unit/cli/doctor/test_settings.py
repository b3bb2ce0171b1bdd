"""What the doctor says about an environment, before it asks any server."""

import pytest

from cli.doctor.finding import Finding, Verdict, worst
from cli.doctor.settings import check_secrets, read_settings
from shared.service.settings import Seconds

GOOD = {"WEBHOOK_API_SECRET": "a" * 32, "WEBHOOK_SECRET": "b" * 32, "PATH": "/bin"}


def troubles(**changes: str) -> list[Finding]:
    settings, findings = read_settings(GOOD | changes)
    findings = [*findings, *check_secrets(settings, ingest_answers=False)]
    return [finding for finding in findings if finding.verdict is not Verdict.OK]


def test_an_environment_with_both_secrets_is_well() -> None:
    settings, findings = read_settings(GOOD)
    assert worst(findings) is Verdict.OK
    [secrets] = check_secrets(settings, ingest_answers=False)
    assert secrets.found == "both secrets are set and long enough"
    assert settings.runtime.lease == Seconds(30)


def test_a_misspelt_name_is_told_with_the_nearest_one() -> None:
    [finding] = troubles(WEBHOOK_TEI_URLS="http://tei")
    assert finding.verdict is Verdict.FAIL
    assert "WEBHOOK_TEI_URLS is not a setting" in finding.found
    assert finding.remedy == "rename it to WEBHOOK_TEI_URL"


def test_every_misspelt_name_and_every_bad_value_is_told() -> None:
    findings = troubles(WEBHOOK_LEAS="3", WEBHOOK_RETENTIONS="3", WEBHOOK_STAGE_CONCURRENCY="many")
    assert [finding.check for finding in findings] == [
        "settings.name",
        "settings.name",
        "settings.value",
    ]
    assert "WEBHOOK_STAGE_CONCURRENCY" in findings[-1].found


def test_settings_that_can_be_read_are_read_beside_one_that_cannot() -> None:
    settings, _ = read_settings(
        {"WEBHOOK_LEASE": "soon", "WEBHOOK_REDIS_URL": "redis://r", "WEBHOOK_X": "1"}
    )
    assert (settings.redis.redis_url, settings.runtime.lease) == ("redis://r", Seconds(30))


@pytest.mark.parametrize(
    ("changes", "check", "remedy"),
    [
        ({"WEBHOOK_API_SECRET": ""}, "settings.secrets", "set at least 32 characters"),
        ({"WEBHOOK_SECRET": "short"}, "settings.secrets", "openssl rand -hex 32"),
        ({"WEBHOOK_TEST_MODE": "true"}, "settings.secrets", "unset WEBHOOK_TEST_MODE"),
        ({"WEBHOOK_LEASE": "10s"}, "settings.lease", "WEBHOOK_LEASE=15s"),
        (
            {"WEBHOOK_DOCUMENT_TIMEOUT": "20m"},
            "settings.timeouts",
            "WEBHOOK_INDEXING_JOB_TIMEOUT=2400s",
        ),
        ({"WEBHOOK_QUEUE_NAME": "q"}, "settings.retired", "unset WEBHOOK_QUEUE_NAME"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_set(
    changes: dict[str, str], check: str, remedy: str
) -> None:
    [finding] = troubles(**changes)
    assert finding.check == check
    assert remedy in (finding.remedy or "")


def test_secrets_that_only_the_services_have_are_not_missed_while_ingest_answers() -> None:
    settings, _ = read_settings({})
    assert worst(check_secrets(settings, ingest_answers=True)) is Verdict.OK
    assert len(check_secrets(settings, ingest_answers=False)) == 2
    weak, _ = read_settings({"WEBHOOK_SECRET": "x"})
    assert worst(check_secrets(weak, ingest_answers=True)) is Verdict.FAIL
