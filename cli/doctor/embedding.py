"""What is judged of one TEI server: its model, how far away it is, and what it runs on. No I/O."""

from collections.abc import Sequence

import msgspec

from cli.doctor.finding import Finding, Findings, ok, refusal, warn
from cli.doctor.servers import round_trip
from embedder.compatibility import Served, check_targets
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError

# Tokens a second that no CPU has: 7,700 were measured on a core with a model of 22 million parameters, 390,000 on
# an L4 with one of 33 million.
_TOKENS_OF_A_GPU = 100_000
_HALF_PRECISION = frozenset({"float16", "bfloat16"})  # TEI's CPU backends know float32 only


class TeiSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself, and what was measured."""

    name: str
    served: Served
    round_trip_ms: float  # the shortest one to /info
    tokens_per_s: float  # over its life by its metrics, else of one request of ours
    has_metrics: bool


def judge_tei(seen: TeiSeen, targets: Sequence[Target]) -> Findings:
    """Whether it is the model of the collections there are, and how well it works."""
    info = seen.served.info
    findings = [ok("tei.version", f"{seen.name}: version {info.version}"), device(seen)]
    findings.append(round_trip("tei", seen.round_trip_ms, elsewhere(targets)))
    try:
        check_targets(targets, seen.served)
        findings.append(ok("tei.model", f"{seen.name}: {info.model_id}, {seen.served.dimension} dimensions"))
    except ConfigurationError as error:
        findings.append(refusal("tei.model", str(error)))
    if not info.counts_inputs:
        found = f"{seen.name}: version {info.version} counts requests, not inputs, and embeds less at once"
        findings.append(warn("tei.limits", found, "upgrade TEI to 1.9 or later"))
    return findings


def elsewhere(targets: Sequence[Target]) -> str | None:
    """How the collection that has this server of its own gets another; None if it is one of WEBHOOK_TEI_URL."""
    own = next((target.collection for target in targets if target.tei_url is not None), None)
    return own and f"move {own} to another TEI with `millstream reindex --collection {own} --tei-url URL`"


def runs_on_gpu(seen: TeiSeen) -> bool:
    """By the type of its numbers, else by its speed."""
    return seen.served.info.model_dtype in _HALF_PRECISION or seen.tokens_per_s >= _TOKENS_OF_A_GPU


def device(seen: TeiSeen) -> Finding:
    """What it runs on, and how that shows."""
    dtype = seen.served.info.model_dtype or "unknown type"
    source = "its metrics" if seen.has_metrics else "one request"
    grounds = f"{dtype}, {seen.tokens_per_s:,.0f} tokens a second by {source}"
    if runs_on_gpu(seen):
        return ok("tei.device", f"{seen.name} runs on a GPU ({grounds})")
    advice = "WEBHOOK_TEI_URL (or that of the collection) may name several; one on a GPU does the work of many"
    return ok("tei.device", f"{seen.name} runs on a CPU ({grounds})", advice)
