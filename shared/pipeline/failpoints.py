"""Failpoints: named moments at which a process dies or freezes, for tests.

`WEBHOOK_FAILPOINT=indexer.committed:kill@3` kills an indexer with SIGKILL when it reaches that
moment for the third time; `stop` freezes it with SIGSTOP instead. Outside test mode the process
refuses to start.
"""

import os
import re
import signal
from collections.abc import Mapping

import msgspec
import structlog

from shared.pipeline.stages import StageName
from shared.service.errors import ConfigurationError

log = structlog.get_logger()

_STAGE_MOMENTS = {
    "taken": "an entry was delivered, and nothing was done about it yet",
    "begun": "Postgres knows that the work has started",
    "handled": "the outcomes are known, and not recorded",
    "recorded": "the outcomes are in Postgres, and the entry is still here",
    "handed_over": "the entry is gone, and its message is in the next stream",
    "splitting": "a redelivered batch is about to be replaced by its documents",
    "split": "it is replaced",
    "dead_lettered": "an unreadable entry is a dead letter, and is still here",
    "reclaimed": "an entry of another consumer is ours, and nothing was done about it yet",
    "postponed": "documents are queued for another try, and the entry is still here",
}

POINTS: Mapping[str, str] = {
    "ingest.accepting": "a job is about to be written",
    "ingest.accepted": "a job is committed, and its sender has no response",
    "ingest.replayed": "dead letters are queued again, and the caller has no response",
    "dispatch.numbered": "a release has its number, and no items",
    "dispatch.released": "the items are released in Postgres, and not in the streams",
    "dispatch.published": "they are in the streams",
    **{
        f"{stage}.{moment}": meaning
        for stage in StageName
        for moment, meaning in stage.row.failpoints.items()
    },
    **{
        f"{stage}.{moment}": meaning
        for stage in StageName
        for moment, meaning in _STAGE_MOMENTS.items()
    },
}

_SETTING = re.compile(r"(?P<point>[a-z_.]+):(?P<action>kill|stop)@(?P<hit>[1-9][0-9]*)")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class _Armed(msgspec.Struct):
    signal: signal.Signals
    hits_left: int


# Module state, since a moment deep inside a transaction cannot be passed an argument.
_armed: dict[str, _Armed] = {}


def arm(setting: str, *, test_mode: bool) -> None:
    """Read `WEBHOOK_FAILPOINT`; empty = none.

    Raises ConfigurationError outside test mode and for what does not fit.
    """
    if not setting:
        return
    if not test_mode:
        raise ConfigurationError(
            "WEBHOOK_FAILPOINT kills this process: it is for tests, with WEBHOOK_TEST_MODE=true"
        )
    match = _SETTING.fullmatch(setting)
    if match is None or match["point"] not in POINTS:
        known = ", ".join(POINTS)
        raise ConfigurationError(
            f"WEBHOOK_FAILPOINT={setting} is not a point and :kill@n or :stop@n; points: {known}"
        )
    _armed[match["point"]] = _Armed(_SIGNALS[match["action"]], int(match["hit"]))


def failpoint(part: str, moment: str) -> None:
    """Die or freeze here, if this failpoint is set and was reached often enough."""
    if not _armed or (armed := _armed.get(f"{part}.{moment}")) is None:
        return
    armed.hits_left -= 1
    if armed.hits_left == 0:
        log.warning("Failpoint reached", point=f"{part}.{moment}", signal=armed.signal.name)
        os.kill(os.getpid(), armed.signal)
