"""Judges one TEI server: its model, its round trip and its device. No I/O."""

from collections.abc import Sequence

import msgspec

from cli.doctor.finding import Finding, Findings, ok, refusal, warn
from cli.doctor.servers import round_trip
from embedder.compatibility import Served, check_targets
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError
from shared.tei.client import TeiInfo
from shared.tei.servers import check_query_model

# Tokens a second that no CPU reaches. Measured: 7,700 on one core (22 million parameters), 390,000
# on an L4 GPU (33 million parameters).
_TOKENS_OF_A_GPU = 100_000
_HALF_PRECISION = frozenset({"float16", "bfloat16"})  # TEI's CPU backends know float32 only


class TeiSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a server reports about itself, and what was measured."""

    name: str
    served: Served
    round_trip_ms: float  # the shortest one to /info
    tokens_per_s: float  # over its lifetime by its metrics, or of one request of the doctor
    has_metrics: bool


def judge_tei(seen: TeiSeen, targets: Sequence[Target]) -> Findings:
    """Whether it serves the model of its collections, and how fast it is."""
    info = seen.served.info
    findings = [ok("tei.version", f"{seen.name}: version {info.version}"), device(seen)]
    findings.append(round_trip("tei", seen.round_trip_ms, elsewhere(targets)))
    try:
        check_targets(targets, seen.served)
        findings.append(
            ok("tei.model", f"{seen.name}: {info.model_id}, {seen.served.dimension} dimensions")
        )
    except ConfigurationError as error:
        findings.append(refusal("tei.model", str(error)))
    if not info.counts_inputs:
        found = (
            f"{seen.name}: version {info.version} limits requests, not inputs, and embeds fewer "
            "texts at once"
        )
        findings.append(warn("tei.limits", found, "upgrade TEI to 1.9 or later"))
    return findings


def judge_query_server(name: str, info: TeiInfo, of_documents: TeiInfo | None) -> Finding:
    """Whether a server of WEBHOOK_SEARCH_TEI_URL serves the model of the documents.

    `of_documents` is None if no server of WEBHOOK_TEI_URL answers: then nothing is compared.
    """
    try:
        if of_documents is not None:
            check_query_model(name, info, of_documents)
    except ConfigurationError as error:
        return refusal("tei.query_model", str(error))
    return ok("tei.query_model", f"{name}: embeds queries with {info.model_id}")


def elsewhere(targets: Sequence[Target]) -> str | None:
    """The remedy for the server of a single collection: moving that to another server.

    None if the server is one of WEBHOOK_TEI_URL.
    """
    own = next((target.collection for target in targets if target.tei_url is not None), None)
    return (
        own
        and f"move {own} to another TEI with `millstream reindex --collection {own} --tei-url URL`"
    )


def runs_on_gpu(seen: TeiSeen) -> bool:
    """Whether its number type or its speed shows a GPU."""
    return seen.served.info.model_dtype in _HALF_PRECISION or seen.tokens_per_s >= _TOKENS_OF_A_GPU


def device(seen: TeiSeen) -> Finding:
    """Its device, and how the doctor knows."""
    dtype = seen.served.info.model_dtype or "unknown type"
    source = "its metrics" if seen.has_metrics else "one request"
    grounds = f"{dtype}, {seen.tokens_per_s:,.0f} tokens a second by {source}"
    if runs_on_gpu(seen):
        return ok("tei.device", f"{seen.name} runs on a GPU ({grounds})")
    advice = (
        "WEBHOOK_TEI_URL (or that of the collection) may name several servers; one on a GPU does "
        "the work of many"
    )
    return ok("tei.device", f"{seen.name} runs on a CPU ({grounds})", advice)
