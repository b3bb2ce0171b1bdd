"""TEI that refuses, hangs, is unavailable, or answers with unusable vectors."""

import asyncio
import itertools
import time

import numpy as np
from qdrant_client.models import FieldCondition, Filter, MatchValue

from indexer.qdrant.collection import DENSE
from tests.support.tei_stand_in import Fault, StandInSettings
from tests.support.waiting import wait_until
from tests.torture.driver import Result, Run, Scenario, Size
from tests.torture.traffic import Request, Traffic, page

_OUTAGE = (Fault.OVERLOADED, Fault.UNAVAILABLE, Fault.HANG)
_OUTAGE_SHARE = 0.6
_TIMEOUT = "2s"  # of a request to TEI, so that what hangs comes to its time
_STORM = 1.5  # times the normal rate
_WINDOW = 2.0  # seconds over which a rate is taken
_LOOK = 0.1  # seconds
_BURST = 60  # requests of several pages at once: more than the embedders have in hand
_PAGES = 4  # in each of them

_GARBAGE = (
    Fault.NULL,
    Fault.NAN,
    Fault.ZERO,
    Fault.MISSING,
    Fault.RAGGED,
    Fault.WRONG_DIMENSION,
    Fault.CUT,
)
_SHARE = 0.1
_PATIENCE = 30.0  # seconds until an answer must have been spoilt


async def fail_in_many_ways(run: Run) -> None:
    """Let TEI refuse, answer 503 or hang for a while; its recovery must not cause a storm.

    Its highest rate of inputs with much to do and nothing wrong is what it is compared with.
    """
    tei = run.rig.tei
    before, failed = (
        await _peak_rate(run, _burst(run, 0)),
        tei.counts.failed + tei.counts.overloaded,
    )
    tei.fail_always(*_OUTAGE, share=_OUTAGE_SHARE)
    try:
        await run.submit(_burst(run, 1), run.size.seconds)
    finally:
        run.faults += tei.counts.failed + tei.counts.overloaded - failed
        tei.heal()
    after = await _peak_rate(run, _burst(run, 2))
    if after > _STORM * before:
        run.problems.append(
            f"{after:.0f} inputs a second when TEI was well again, {before:.0f} are normal"
        )


def _burst(run: Run, number: int) -> list[Request]:
    """Requests for pages of their own."""
    numbers = itertools.count(10**6 + number * _BURST * _PAGES)
    pages = [[page(run.site, next(numbers), 0) for _ in range(_PAGES)] for _ in range(_BURST)]
    return [Request(key=each[0].url, pages=tuple(each)) for each in pages]


async def _peak_rate(run: Run, traffic: list[Request]) -> float:
    """The most inputs a second that TEI was sent in any window until the traffic was through."""
    looks: list[tuple[float, int]] = []
    sending = asyncio.create_task(run.submit(traffic))
    while not sending.done() or await run.observer.is_busy(run.site):
        looks.append((time.monotonic(), run.rig.tei.counts.inputs))
        await asyncio.sleep(_LOOK)
    await sending
    span = int(_WINDOW / _LOOK)
    rates = [
        (there - here) / (then - now)
        for (now, here), (then, there) in zip(looks, looks[span:], strict=False)
    ]
    return max(rates, default=0.0)


async def answer_garbage(run: Run) -> None:
    """Let one answer in ten be unusable, each in another way."""
    tei = run.rig.tei
    failed = tei.counts.failed
    tei.fail_always(*_GARBAGE, share=_SHARE)
    try:
        await asyncio.sleep(run.size.seconds)
        await wait_until(  # a short size sends few requests
            lambda: tei.counts.failed > failed, timeout=_PATIENCE, description="a bad answer"
        )
    finally:
        tei.heal()
    run.faults += tei.counts.failed - failed


async def stored_no_garbage(run: Run, _: Result) -> list[str]:
    """Whether all vectors of the site are of one dimension, finite and of length 1."""
    dimension = StandInSettings().dimension
    of_site = Filter(must=[FieldCondition(key="domain", match=MatchValue(value=run.site))])
    wrong = []
    async for record in run.observer.records(of_site):
        vector = record.vector.get(DENSE) if isinstance(record.vector, dict) else None
        values = np.array(vector if vector is not None else [], dtype=float)
        if values.shape != (dimension,) or not np.isclose(np.linalg.norm(values), 1.0, atol=1e-3):
            wrong.append(
                f"point {record.id} has a vector of shape {values.shape} "
                f"and length {np.linalg.norm(values)}"
            )
    return wrong


SCENARIOS = {
    13: Scenario(
        "TEI refuses, hangs and goes away", fail_in_many_ways, Size(40, 6, 0), Size(1000, 60, 0),
        environment={"WEBHOOK_TEI_TIMEOUT": _TIMEOUT}, traffic=Traffic(ends=True),
    ),
    14: Scenario(
        "garbage from TEI", answer_garbage, Size(60, 6, 0), Size(500, 60, 0),
        verify=stored_no_garbage,
    ),
}  # fmt: skip
