"""What the workers wait for: each one publishes it in Redis, and ingest reads it for /health and
the page.
"""

import msgspec

from shared.pipeline.stages import StageName
from shared.service.health import Wait

# A hash: consumer -> its report. Workers that wait for nothing are not in it.
WAITS = "{webhook}:waits"


class WorkerWaits(msgspec.Struct, frozen=True, kw_only=True):
    """One worker and everything it waits for."""

    stage: StageName
    consumer: str
    waits: list[Wait]


def decode_waits(value: bytes) -> WorkerWaits | None:
    """A report as waits.lua stored it: the time in ms, a space, JSON.

    None if a newer release wrote another form.
    """
    try:
        return msgspec.json.decode(value.partition(b" ")[2], type=WorkerWaits)
    except msgspec.DecodeError:
        return None
