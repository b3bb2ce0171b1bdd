"""TEI that answers with vectors that are none."""

import asyncio

import numpy as np
from qdrant_client.models import FieldCondition, Filter, MatchValue

from indexer.collection import DENSE
from tests.support.tei_stand_in import Fault, StandInSettings
from tests.torture.driver import Result, Run, Scenario, Size

_GARBAGE = (Fault.NULL, Fault.NAN, Fault.ZERO, Fault.MISSING, Fault.RAGGED, Fault.WRONG_DIMENSION, Fault.CUT)
_SHARE = 0.1


async def answer_garbage(run: Run) -> None:
    """Let one answer in ten be unusable, each in another way."""
    tei = run.rig.tei
    failed = tei.counts.failed
    tei.fail_always(*_GARBAGE, share=_SHARE)
    try:
        await asyncio.sleep(run.size.seconds)
        async with asyncio.timeout(run.size.seconds):  # a short size sends few requests
            while tei.counts.failed == failed:  # noqa: ASYNC110 - the stand-in gives no event
                await asyncio.sleep(0.1)
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
            wrong.append(f"point {record.id} has a vector of shape {values.shape} and length {np.linalg.norm(values)}")
    return wrong


SCENARIOS = {
    14: Scenario(
        "garbage from TEI", answer_garbage, Size(60, 6, 0), Size(500, 60, 0), verify=stored_no_garbage,
    ),
}  # fmt: skip
