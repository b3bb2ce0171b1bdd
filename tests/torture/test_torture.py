"""Every scenario in its short size, on one pipeline; `python -m tests.torture` runs the full sizes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.torture.driver import run_scenario
from tests.torture.rig import Rig, running_rig
from tests.torture.scenarios import SCENARIOS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SEED = 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with running_rig(SEED) as running:
        yield running


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_pipeline_ends_clean_after(rig: Rig, number: int) -> None:
    scenario = SCENARIOS[number]
    result = await run_scenario(rig, number, scenario.fault, SEED, scenario.short)
    assert result.problems == []
    assert result.documents >= scenario.short.documents
    assert result.faults > 0
