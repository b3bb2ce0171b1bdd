"""Results of torture runs: one line of JSON each, kept by scenario and seed, rendered between the
marks of a page.
"""

from pathlib import Path

import msgspec
import pytest

from tests.torture.driver import Result
from tests.torture.report import BEGIN, END, line, record
from tests.torture.scenarios import SCENARIOS

RESULT = Result(
    scenario=1,
    seed=7,
    documents=80,
    faults=3,
    redeliveries=12,
    refused=1,
    lost=0,
    doubled=0,
    dead=0,
    clean=True,
    seconds=4.5,
    problems=["not for the line"],
)


def test_a_result_is_one_line_of_json_with_exactly_the_fields_that_are_promised() -> None:
    assert line(RESULT) == (
        '{"scenario":1,"seed":7,"documents":80,"faults":3,"redeliveries":12,'
        '"refused":1,"lost":0,"doubled":0,"dead":0,'
        '"clean":true,"seconds":4.5}'
    )


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return path


def test_results_of_several_runs_stand_side_by_side_and_a_repeated_one_replaces_the_first(
    document: Path,
) -> None:
    kept = document.with_name("results.json")
    other = msgspec.structs.replace(RESULT, seed=8, clean=False)
    record([RESULT, other], kept, document)
    record([msgspec.structs.replace(RESULT, seconds=6.0)], kept, document)
    before, _, table = document.read_text().partition(BEGIN)
    rows, _, after = table.partition(END)
    assert (before, after) == ("before\n", "\nafter\n")
    assert rows.splitlines()[3:] == [
        f"| 1 | {SCENARIOS[1].title} | 7 | 80 | 3 | 12 | 1 | 0 | 0 | 6 |",
        f"| 1 | {SCENARIOS[1].title} | 8 | 80 | 3 | 12 | 1 | 0 | 0 | not clean |",
    ]
