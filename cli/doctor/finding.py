"""What the doctor reports: a verdict on one thing, what was found, and what to change. No I/O."""

import enum
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from cli.doctor.load import StageLoad


class Verdict(enum.StrEnum):
    """How bad it is, in rising order."""

    OK = "ok"
    WARN = "warn"  # it works, but not as well as it could, or not for long
    FAIL = "fail"  # something does not work, or accepted documents are in danger


_ORDER = list(Verdict)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check. `remedy` names the setting or command to change; with `ok` it is advice."""

    check: str  # for programs, for example `redis.policy`
    verdict: Verdict
    found: str
    remedy: str | None = None
    runbook: str | None = None  # docs/runbooks/NAME.md has more


Findings: TypeAlias = list[Finding]


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What `millstream doctor --json` prints."""

    verdict: Verdict  # the worst of all findings
    findings: Findings
    stages: list[StageLoad]  # measured over the latest documents of the last hour


def ok(check: str, found: str, advice: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, found=found, remedy=advice)


def warn(check: str, found: str, remedy: str, runbook: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.WARN, found=found, remedy=remedy, runbook=runbook)


def fail(check: str, found: str, remedy: str, runbook: str | None = None) -> Finding:
    return Finding(check=check, verdict=Verdict.FAIL, found=found, remedy=remedy, runbook=runbook)


def refusal(check: str, message: str, runbook: str | None = None) -> Finding:
    """A reason why a service would not start, from its ConfigurationError: `PROBLEM: REMEDY`."""
    found, _, remedy = message.rpartition(": ")
    return fail(check, found, remedy, runbook)


def figure(value: float) -> str:
    """A number with two significant digits, or without decimals from 10 on."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of the findings; OK if there are none."""
    return max((finding.verdict for finding in findings), key=_ORDER.index, default=Verdict.OK)
