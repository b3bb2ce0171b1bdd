"""The steps of reindexes, which the elected dispatcher takes between its releases.

The statement of each step is in ingest/jobs/reindexes.py. Their order is explained in
docs/decisions/0010-switching-the-live-target.md.
"""

import enum

import structlog

from ingest.jobs.reindexes import OpenReindex, Pause, Phase, Reindexes

log = structlog.get_logger()

FEW = 100  # documents: a pass that finds at most so many is the last one before the pause
MAX_PASSES = 10  # then it pauses, even if documents keep changing
MAX_OPEN_TRANSFERS = 4000  # queued at once: they share the pipeline, and can be cancelled
_SLICE = 1000  # documents of one job
_RETRY_S = 60.0  # after a pause that took too long
_CHECK_S = 10.0  # between checks whether failed transfers were retried


class Step(enum.Enum):
    """The next step of a reindex."""

    WAIT = enum.auto()
    TRANSFER = enum.auto()  # queue the next documents of this pass
    NEXT_PASS = enum.auto()
    PAUSE = enum.auto()
    HOLD = enum.auto()  # documents failed: an operator decides, the pipeline continues
    GIVE_WAY = enum.auto()  # the pause takes too long: end it and try again later
    SWITCH = enum.auto()


def next_step(reindex: OpenReindex, longest_pause: float) -> Step:
    """Decide the next step; `longest_pause` in seconds.

    During a pause, no item of the source may be in the streams.
    """
    if reindex.phase is Phase.PAUSING and reindex.phase_seconds > longest_pause:
        return Step.GIVE_WAY
    if not reindex.is_due or reindex.is_in_flight:
        return Step.WAIT
    if not reindex.is_pass_done:
        return Step.TRANSFER if reindex.open_transfers < MAX_OPEN_TRANSFERS else Step.WAIT
    return Step.WAIT if reindex.open_transfers else _after_pass(reindex)


def _after_pass(reindex: OpenReindex) -> Step:
    """The step after a pass whose transfers have all ended."""
    if reindex.failed and not reindex.skip_failed:
        return Step.HOLD
    if reindex.phase is Phase.PAUSING:
        return Step.NEXT_PASS if reindex.pass_documents else Step.SWITCH
    return (
        Step.NEXT_PASS
        if reindex.pass_documents > FEW and reindex.pass_ < MAX_PASSES
        else Step.PAUSE
    )


class Reindexer:
    """Takes the steps, each of which can be repeated.

    Raises DependencyError when Postgres is unavailable.
    """

    def __init__(self, reindexes: Reindexes, stage_timeout: float) -> None:
        """`stage_timeout`: seconds for a batch message in one stage, and for a pause."""
        self._reindexes = reindexes
        self._stage_timeout = stage_timeout

    async def pauses(self) -> frozenset[Pause]:
        """The present pauses, during which only transfers may be released.

        Must be called after the marker was read, not before.
        """
        return await self._reindexes.pauses()

    async def step(self, shut: frozenset[Pause]) -> None:
        """Take the next step of each reindex; of a pausing one only if the streams are shut for its
        pause.
        """
        for reindex in await self._reindexes.in_progress():
            if reindex.phase is not Phase.PAUSING or reindex.pause in shut:
                await self._take(next_step(reindex, self._stage_timeout), reindex)

    async def _take(self, step: Step, reindex: OpenReindex) -> None:
        match step:
            case Step.TRANSFER:
                await self._reindexes.transfer(reindex, _SLICE, self._stage_timeout)
            case Step.NEXT_PASS:
                await self._reindexes.enter(reindex, reindex.phase)
            case Step.PAUSE:
                log.info(
                    "Reindex pauses the dispatcher",
                    collection=reindex.collection,
                    target=reindex.target,
                )
                await self._reindexes.enter(reindex, Phase.PAUSING)
            case Step.HOLD:
                error = (
                    f"{reindex.failed} documents could not be transferred: "
                    "replay their dead letters, or set skip_failed"
                )
                await self._reindexes.enter(reindex, Phase.FILLING, delay=_CHECK_S, error=error)
            case Step.GIVE_WAY:
                error = (
                    f"items in the streams did not end within {self._stage_timeout:g} s: "
                    f"trying again in {_RETRY_S:g} s"
                )
                log.warning(
                    "Reindex gives way",
                    collection=reindex.collection,
                    target=reindex.target,
                    error=error,
                )
                await self._reindexes.enter(reindex, Phase.FILLING, delay=_RETRY_S, error=error)
            case Step.SWITCH:
                await self._switch(reindex)

    async def _switch(self, reindex: OpenReindex) -> None:
        if await self._reindexes.switch(reindex):
            log.info(
                "Reindex switched",
                collection=reindex.collection,
                source=reindex.source,
                target=reindex.target,
            )
        else:
            await self._reindexes.enter(reindex, Phase.PAUSING)
