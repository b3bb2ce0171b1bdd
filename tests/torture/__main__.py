"""`python -m tests.torture`: runs scenarios, and exits 1 unless all end clean.

The last line of its output is the last result.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import time

import msgspec
import structlog

from tests.support.run_guard import guarded_run
from tests.torture.driver import Result, obstacle, run_scenario
from tests.torture.report import DOCUMENT, line, record
from tests.torture.rig import Rig, running_rig
from tests.torture.scenarios import SCENARIOS

_SHOWN_PROBLEMS = 20


class Plan(msgspec.Struct):
    """What is still to be run, and how it went so far."""

    numbers: list[int]
    seed: int
    is_short: bool
    is_recorded: bool
    results: list[Result] = []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "--scenario", type=int, action="append", choices=sorted(SCENARIOS), help="only this one"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="what is drawn: traffic, victims, lost replies"
    )
    parser.add_argument("--short", action="store_true", help="the sizes of the test suite")
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many run side by side, on pipelines of their own"
    )
    parser.add_argument(
        "--record", action="store_true", help=f"keep the results, and put them into {DOCUMENT}"
    )
    options = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # of product code that runs in here
    numbers = [number for number in options.scenario or sorted(SCENARIOS) if _can_run(number)]
    plan = Plan(numbers, options.seed, options.short, options.record)
    with guarded_run():
        asyncio.run(_run_side_by_side(plan, options.jobs))
    return 0 if all(result.clean for result in plan.results) else 1


def _can_run(number: int) -> bool:
    """Whether the scenario can be run here; says so if it cannot."""
    why_not = obstacle(SCENARIOS[number])
    if why_not:
        _print(f"{number}: {SCENARIOS[number].title}: not run, {why_not}")
    return not why_not


async def _run_side_by_side(plan: Plan, jobs: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    # Not by the handler of SIGINT, which a shell ignores for its background jobs.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(_run(plan))


async def _run(plan: Plan) -> None:
    """Run what is left; scenarios without settings of their own have a pipeline in common."""
    async with contextlib.AsyncExitStack() as stack:
        shared: Rig | None = None
        while plan.numbers:
            number = plan.numbers.pop(0)
            if settings := SCENARIOS[number].environment:
                async with running_rig(plan.seed, settings) as rig:
                    await _run_one(plan, rig, number)
            else:
                if shared is None:
                    shared = await stack.enter_async_context(running_rig(plan.seed))
                await _run_one(plan, shared, number)


async def _run_one(plan: Plan, rig: Rig, number: int) -> None:
    scenario = SCENARIOS[number]
    size = scenario.short if plan.is_short else scenario.full
    started = time.monotonic()
    result = await run_scenario(rig, number, scenario, plan.seed, size)
    plan.results.append(result)
    if plan.is_recorded:  # each at once: the whole suite takes long, and may be ended early
        record([result])
    end = "clean" if result.clean else "NOT CLEAN"
    _print(f"{number}: {scenario.title}: {end}, {time.monotonic() - started:.0f} s in all")
    for problem in result.problems[:_SHOWN_PROBLEMS]:
        _print(f"   {problem}")
    _print(line(result))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
