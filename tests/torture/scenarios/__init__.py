"""The scenarios by number: the faults that the pipeline gets under load. Numbers are stable."""

from collections.abc import Mapping

from tests.torture.driver import Scenario
from tests.torture.scenarios import (
    crashes,
    failpoints,
    lanes,
    load,
    overtaking,
    postgres_faults,
    qdrant_faults,
    redis_faults,
    requests,
    soak,
    staged,
    tei_faults,
)

_MODULES = (
    crashes, failpoints, redis_faults, postgres_faults, tei_faults, qdrant_faults, overtaking,
    requests, load,
    lanes, soak, staged,
)  # fmt: skip
SCENARIOS: Mapping[int, Scenario] = dict(
    sorted((n, s) for module in _MODULES for n, s in module.SCENARIOS.items())
)
