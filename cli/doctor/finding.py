"""What the doctor says: a verdict on one thing, what was found, and what to change. No I/O."""

import enum
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from cli.doctor.load import StageLoad


class Verdict(enum.StrEnum):
    """How bad it is, in rising order."""

    OK = "ok"
    WARN = "warn"  # it works, and will not for long, or not as well as it could
    FAIL = "fail"  # something does not work, or what was accepted is in danger


_ORDER = list(Verdict)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check. `remedy` names the setting or command to change, and may be advice where all is well."""

    check: str  # for programs, for example `redis.policy`
    verdict: Verdict
    found: str
    remedy: str | None = None
    runbook: str | None = None  # docs/runbooks/NAME.md has more


Findings: TypeAlias = list[Finding]


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What `millstream doctor --json` prints."""

    verdict: Verdict  # the worst of the findings'
    findings: Findings
    stages: list[StageLoad]  # measured over the latest documents of the last hour


def ok(check: str, found: str, advice: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, found=found, remedy=advice)


def warn(check: str, found: str, remedy: str, runbook: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.WARN, found=found, remedy=remedy, runbook=runbook)


def fail(check: str, found: str, remedy: str, runbook: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.FAIL, found=found, remedy=remedy, runbook=runbook)


def refusal(check: str, message: str, runbook: str | None = None) -> Finding:
    """What a service would not start on, by the message of its ConfigurationError: `what is wrong: what to do`."""
    found, _, remedy = message.rpartition(": ")
    return fail(check, found, remedy, runbook)


def figure(value: float) -> str:
    """A number with two digits, or with all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict on all of them together."""
    return max((finding.verdict for finding in findings), key=_ORDER.index, default=Verdict.OK)
