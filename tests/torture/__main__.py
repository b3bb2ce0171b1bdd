"""`python -m tests.torture`: runs scenarios one after another on one pipeline; exits 1 unless all end clean."""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from tests.torture.driver import Result, run_scenario
from tests.torture.report import write_table
from tests.torture.rig import running_rig
from tests.torture.scenarios import SCENARIOS

_DOCUMENT = Path("docs/reliability.md")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--scenario", type=int, action="append", choices=sorted(SCENARIOS), help="only this one")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn: traffic, victims, lost replies")
    parser.add_argument("--short", action="store_true", help="the sizes of the test suite")
    parser.add_argument("--write-table", action="store_true", help=f"put the results into {_DOCUMENT}")
    options = parser.parse_args()
    numbers = options.scenario or sorted(SCENARIOS)
    results = asyncio.run(_run(numbers, options.seed, is_short=options.short))
    for result in results:
        _print(msgspec.json.encode({f: getattr(result, f) for f in Result.__struct_fields__ if f != "problems"}))
    if options.write_table:
        write_table(_DOCUMENT, results, is_short=options.short)
    return 0 if all(result.clean for result in results) else 1


async def _run(numbers: list[int], seed: int, *, is_short: bool) -> list[Result]:
    results = []
    async with running_rig(seed) as rig:
        for number in numbers:
            scenario = SCENARIOS[number]
            size = scenario.short if is_short else scenario.full
            _print(f"{number}: {scenario.title} (seed {seed}, {size.documents} documents)".encode())
            result = await run_scenario(rig, number, scenario.fault, seed, size)
            results.append(result)
            _print(f"   {'clean' if result.clean else 'NOT CLEAN'} after {result.seconds:g} s".encode())
            for problem in result.problems[:20]:
                _print(f"   {problem}".encode())
    return results


def _print(line: bytes) -> None:
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
