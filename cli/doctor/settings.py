"""Whether the settings of an environment can be read, know each other, and are safe. No I/O."""

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

_MIN_RENEWALS = 3  # in one lease: two may be late before the entry is somebody else's


class DoctorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor itself goes by. A block that cannot be read has its defaults."""

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
    """The settings as far as they can be read, and what is wrong with those that cannot."""
    unknown = unknown_variables(environ)
    findings = [
        fail("settings.name", f"{name} is not a setting, so that no service starts", f"rename it to {nearest}")
        for name, nearest in unknown.items()
    ]
    known = {name: value for name, value in environ.items() if name not in unknown}
    read: dict[type, Any] = {}
    for block in blocks():
        try:
            read[block] = _read(block, known)
        except ConfigurationError as error:
            findings.append(fail("settings.value", str(error), "set it as docs/settings.md says, or unset it"))
            read[block] = block()
    wanted = {field.name: read[field.type] for field in msgspec.structs.fields(DoctorSettings)}
    settings = DoctorSettings(**wanted)
    if not findings:
        findings.append(ok("settings.name", "every WEBHOOK_ name is known and its value can be read"))
    return settings, [*findings, *_retired(environ), *check_secrets(settings), *check_limits(settings)]


def check_secrets(settings: DoctorSettings) -> Findings:
    """Whether the secrets are there and long enough."""
    if settings.process.test_mode:
        remedy = "unset WEBHOOK_TEST_MODE"
        return [warn("settings.secrets", "WEBHOOK_TEST_MODE allows weak secrets and failpoints", remedy)]
    secrets = {"WEBHOOK_API_SECRET": settings.ingest.api_secret, "WEBHOOK_SECRET": settings.ingest.secret}
    findings: Findings = []
    for name, secret in secrets.items():
        try:
            check_secret(name, secret, test_mode=False)
        except ConfigurationError as error:
            findings.append(refusal("settings.secrets", str(error)))
    return findings or [ok("settings.secrets", "both secrets are set and long enough")]


def check_limits(settings: DoctorSettings) -> Findings:
    """Whether limits that depend on each other fit."""
    runtime = settings.runtime
    lease, timeout = _MIN_RENEWALS * runtime.lease_renewal, 2 * runtime.document_timeout
    findings: Findings = []
    if runtime.lease < lease:
        findings.append(
            warn(
                "settings.lease",
                f"a lease of {runtime.lease:g} s has room for fewer than {_MIN_RENEWALS} renewals "
                f"({runtime.lease_renewal:g} s): entries are taken from workers that are well",
                f"WEBHOOK_LEASE={lease:g}s or longer, or a shorter WEBHOOK_LEASE_RENEWAL",
                "dead-consumers",
            )
        )
    if runtime.document_timeout > runtime.indexing_job_timeout:
        findings.append(
            warn(
                "settings.timeouts",
                f"one document may take {runtime.document_timeout:g} s, "
                f"but the batch message it is in {runtime.indexing_job_timeout:g} s",
                f"WEBHOOK_INDEXING_JOB_TIMEOUT={timeout:g}s, or a shorter WEBHOOK_DOCUMENT_TIMEOUT",
                "timeouts",
            )
        )
    return findings


def _retired(environ: Mapping[str, str]) -> list[Finding]:
    return [warn("settings.retired", f"{name} has no effect", f"unset {name}") for name in retired_variables(environ)]


def _read(block: type, environ: Mapping[str, str]) -> Any:
    only = msgspec.defstruct("Only", [("block", block)], frozen=True)
    return load(only, environ).block  # type: ignore[attr-defined]
