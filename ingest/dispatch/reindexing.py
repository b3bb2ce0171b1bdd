"""The steps of reindexes, taken by the elected dispatcher between its releases. What each step does is in
ingest/jobs/reindexes.py; why they come in this order is in docs/decisions/0010-switching-the-live-target.md.
"""

import enum

import structlog

from ingest.jobs.reindexes import Pause, Phase, Reindexes, UnderWay

log = structlog.get_logger()

FEW = 100  # documents: a pass that finds no more differing is the last one before the pause
MAX_PASSES = 10  # then it pauses, however fast documents change
MAX_OPEN_TRANSFERS = 4000  # queued at once: transfers get a share of the pipeline, and may still be cancelled
_SLICE = 1000  # documents of one job
_RETRY_S = 60.0  # after a pause that came to no end
_LOOK_AGAIN_S = 10.0  # whether what failed is transferred now


class Step(enum.Enum):
    """What to do about a reindex next."""

    WAIT = enum.auto()
    TRANSFER = enum.auto()  # queue the next slice of this pass
    NEXT_PASS = enum.auto()
    PAUSE = enum.auto()
    HOLD = enum.auto()  # documents failed: a person decides, the pipeline goes on
    GIVE_WAY = enum.auto()  # the pause takes too long
    SWITCH = enum.auto()


def next_step(reindex: UnderWay, longest_pause: float) -> Step:
    """Decide what comes next; `longest_pause` in seconds. In the pause nothing new may be in the streams any more."""
    if reindex.phase is Phase.PAUSING and reindex.phase_seconds > longest_pause:
        return Step.GIVE_WAY
    if not reindex.is_due or reindex.is_in_flight:
        return Step.WAIT
    if not reindex.is_pass_done:
        return Step.TRANSFER if reindex.open_transfers < MAX_OPEN_TRANSFERS else Step.WAIT
    return Step.WAIT if reindex.open_transfers else _after_pass(reindex)


def _after_pass(reindex: UnderWay) -> Step:
    """All that the pass found has been transferred, or has failed."""
    if reindex.failed and not reindex.skip_failed:
        return Step.HOLD
    if reindex.phase is Phase.PAUSING:
        return Step.NEXT_PASS if reindex.pass_documents else Step.SWITCH
    return Step.NEXT_PASS if reindex.pass_documents > FEW and reindex.pass_ < MAX_PASSES else Step.PAUSE


class Reindexer:
    """Takes the steps. Raises DependencyError when Postgres is away; every step may be repeated."""

    def __init__(self, reindexes: Reindexes, stage_timeout: float) -> None:
        """`stage_timeout` of a batch message in one stage, in seconds; a pause may take as long."""
        self._reindexes = reindexes
        self._stage_timeout = stage_timeout

    async def pauses(self) -> frozenset[Pause]:
        """In any of them nothing but transfers may be released. Ask after the marker was read, not before."""
        return await self._reindexes.pauses()

    async def step(self, shut: frozenset[Pause]) -> None:
        """Take the next step of each reindex; in a pause only if the streams were shut for it."""
        for reindex in await self._reindexes.under_way():
            if reindex.phase is not Phase.PAUSING or reindex.pause in shut:
                await self._take(next_step(reindex, self._stage_timeout), reindex)

    async def _take(self, step: Step, reindex: UnderWay) -> None:
        match step:
            case Step.TRANSFER:
                await self._reindexes.transfer(reindex, _SLICE, self._stage_timeout)
            case Step.NEXT_PASS:
                await self._reindexes.enter(reindex, reindex.phase)
            case Step.PAUSE:
                log.info("Reindex pauses the dispatcher", collection=reindex.collection, target=reindex.target)
                await self._reindexes.enter(reindex, Phase.PAUSING)
            case Step.HOLD:
                error = f"{reindex.failed} documents could not be transferred: try them again, or skip them"
                await self._reindexes.enter(reindex, Phase.FILLING, delay=_LOOK_AGAIN_S, error=error)
            case Step.GIVE_WAY:
                error = f"what was in the streams did not end within {self._stage_timeout:g} s"
                log.warning("Reindex gives way", collection=reindex.collection, target=reindex.target, error=error)
                await self._reindexes.enter(reindex, Phase.FILLING, delay=_RETRY_S, error=error)
            case Step.SWITCH:
                await self._switch(reindex)

    async def _switch(self, reindex: UnderWay) -> None:
        if await self._reindexes.switch(reindex):
            log.info("Reindex switched", collection=reindex.collection, source=reindex.source, target=reindex.target)
        else:
            await self._reindexes.enter(reindex, Phase.PAUSING)
