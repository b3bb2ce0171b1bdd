"""Every scenario in its short size; `python -m tests.torture` runs the full sizes."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.torture.driver import obstacle, run_scenario
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
    if why_not := obstacle(scenario):
        pytest.skip(why_not)
    async with contextlib.AsyncExitStack() as stack:
        if scenario.environment:
            rig = await stack.enter_async_context(running_rig(SEED, scenario.environment))
        result = await run_scenario(rig, number, scenario, SEED, scenario.short)
    assert result.problems == []
    assert result.documents >= scenario.short.documents
    assert result.faults > 0
