import asyncio
import time

from shared.runtime.process import watch_event_loop
from shared.service.metrics import Metrics
from tests.support.waiting import wait_until


def observed(metrics: Metrics) -> tuple[float, float]:
    """How often the lag was measured, and the sum of all lags."""
    count = metrics.registry.get_sample_value("millstream_event_loop_lag_seconds_count")
    total = metrics.registry.get_sample_value("millstream_event_loop_lag_seconds_sum")
    assert count is not None
    assert total is not None
    return count, total


async def test_what_blocks_the_event_loop_shows_as_lag() -> None:
    metrics = Metrics()
    watch = asyncio.create_task(watch_event_loop(metrics.event_loop_lag))
    await asyncio.sleep(0)
    time.sleep(0.8)  # noqa: ASYNC251 - this is what is measured
    await wait_until(lambda: observed(metrics)[0] > 0, description="a measurement")
    watch.cancel()
    assert observed(metrics)[1] > 0.2
