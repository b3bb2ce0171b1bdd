"""Judges whether settings can be read, are consistent, and are safe. No I/O."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, refusal, warn
from shared.service.errors import ConfigurationError
from shared.service.settings import (
    ChunkerSettings,
    DispatchSettings,
    IngestSettings,
    PostgresSettings,
    ProcessSettings,
    QdrantSettings,
    RedisSettings,
    RuntimeSettings,
    TeiSettings,
    blocks,
    check_secret,
    load,
    retired_variables,
    unknown_variables,
)

_MIN_RENEWALS = 3  # in one lease: two may be late before another worker takes the entry


class DoctorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that the doctor itself uses. A block that cannot be read has its defaults."""

    process: ProcessSettings
    redis: RedisSettings
    postgres: PostgresSettings
    runtime: RuntimeSettings
    dispatch: DispatchSettings
    ingest: IngestSettings
    chunker: ChunkerSettings
    tei: TeiSettings
    qdrant: QdrantSettings


def read_settings(environ: Mapping[str, str]) -> tuple[DoctorSettings, Findings]:
    """The settings that can be read, and what is wrong with the others. Secrets are not judged."""
    unknown = unknown_variables(environ)
    findings = [
        fail(
            "settings.name",
            f"{name} is not a setting, so no service starts",
            f"rename it to {nearest}",
        )
        for name, nearest in unknown.items()
    ]
    known = {name: value for name, value in environ.items() if name not in unknown}
    read: dict[type, Any] = {}
    for block in blocks():
        try:
            read[block] = _read(block, known)
        except ConfigurationError as error:
            remedy = "set it as docs/settings.md says, or unset it"
            findings.append(fail("settings.value", str(error), remedy))
            read[block] = block()
    wanted = {field.name: read[field.type] for field in msgspec.structs.fields(DoctorSettings)}
    settings = DoctorSettings(**wanted)
    if not findings:
        found = "every WEBHOOK_ variable is a setting and has a valid value"
        findings.append(ok("settings.name", found))
    return settings, [*findings, *_retired(environ), *check_limits(settings)]


def check_secrets(settings: DoctorSettings, *, ingest_answers: bool) -> Findings:
    """Whether the secrets are set and long enough.

    An ingest that answers has valid secrets, or it would not have started. Then a secret that is
    not set here is one that only the services know.
    """
    if settings.process.test_mode:
        found = "WEBHOOK_TEST_MODE allows weak secrets and failpoints"
        return [warn("settings.secrets", found, "unset WEBHOOK_TEST_MODE")]
    secrets = {
        "WEBHOOK_API_SECRET": settings.ingest.api_secret,
        "WEBHOOK_SECRET": settings.ingest.secret,
    }
    findings: Findings = []
    for name, secret in secrets.items():
        if ingest_answers and not secret:
            continue
        try:
            check_secret(name, secret, test_mode=False)
        except ConfigurationError as error:
            findings.append(refusal("settings.secrets", str(error)))
    if findings:
        return findings
    if all(secrets.values()):
        return [ok("settings.secrets", "both secrets are set and long enough")]
    return [ok("settings.secrets", "not all secrets are set here; ingest runs with its own")]


def check_limits(settings: DoctorSettings) -> Findings:
    """Whether limits that depend on each other are consistent."""
    runtime = settings.runtime
    lease, timeout = _MIN_RENEWALS * runtime.lease_renewal, 2 * runtime.document_timeout
    findings: Findings = []
    if runtime.lease < lease:
        findings.append(
            warn(
                "settings.lease",
                f"a lease of {runtime.lease:g} s has room for fewer than {_MIN_RENEWALS} renewals "
                f"({runtime.lease_renewal:g} s each): healthy workers lose their entries",
                f"WEBHOOK_LEASE={lease:g}s or longer, or a shorter WEBHOOK_LEASE_RENEWAL",
                "dead-consumers",
            )
        )
    if runtime.document_timeout > runtime.indexing_job_timeout:
        findings.append(
            warn(
                "settings.timeouts",
                f"one document may take {runtime.document_timeout:g} s, "
                f"but its batch message is expected after {runtime.indexing_job_timeout:g} s",
                f"WEBHOOK_INDEXING_JOB_TIMEOUT={timeout:g}s, or a shorter WEBHOOK_DOCUMENT_TIMEOUT",
                "timeouts",
            )
        )
    return findings


def _retired(environ: Mapping[str, str]) -> list[Finding]:
    return [
        warn("settings.retired", f"{name} has no effect", f"unset {name}")
        for name in retired_variables(environ)
    ]


def _read(block: type, environ: Mapping[str, str]) -> Any:
    only = msgspec.defstruct("Only", [("block", block)], frozen=True)
    return load(only, environ).block  # type: ignore[attr-defined]
