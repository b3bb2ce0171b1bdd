"""Counts what a run has caused. It reads logs, which are complete even of killed processes."""

import msgspec

from tests.torture.logs import Logs

_RELEASED_AGAIN = "Released items were not in the streams, queued again"

STAGES = ("chunker", "embedder", "indexer")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How often; as a minimum: how often at least, or the run has shown nothing."""

    redeliveries: int = 0  # entries that a stage got although somebody had had them before
    refused: int = 0  # hand-overs that returned 0
    # Items that were released although they had been before: Redis lost them.
    released_again: int = 0


def count(logs: Logs) -> Counts:
    stages = [event.get("event") for event in logs.events(*STAGES)]
    again = [event for event in logs.events("ingest") if event.get("event") == _RELEASED_AGAIN]
    return Counts(
        redeliveries=stages.count("Entry delivered again"),
        refused=stages.count("Hand-over refused"),
        released_again=sum(event["items"] for event in again),
    )


def missing(minimum: Counts, found: Counts) -> list[str]:
    """What was to happen and did not, in words."""
    wanted, had = msgspec.structs.asdict(minimum), msgspec.structs.asdict(found)
    return [
        f"only {had[name]} {name.replace('_', ' ')}, at least {least} were to happen"
        for name, least in wanted.items()
        if had[name] < least
    ]
