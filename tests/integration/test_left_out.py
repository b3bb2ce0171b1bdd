"""A run that is given servers leaves out the tests that cannot run on them, and says how many."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.local_stack import bare_environ

ROOT = Path(__file__).parents[2]
FILES = (
    "tests/contract/test_tei_contract.py",
    "tests/integration/test_tei_convert.py",
    "tests/integration/test_point_store.py",
)
NONE_GIVEN = {
    f"MILLSTREAM_TEST_{part}_{what}": ""
    for part in ("TEI", "QDRANT")
    for what in ("URL", "COMMAND")
}
OTHER_TEI = "left out: about the embedded tei, and the run was given another one"
SHARED_TEI = "left out: needs a tei of its own, which MILLSTREAM_TEST_TEI_COMMAND would start"
SHARED_QDRANT = (
    "left out: needs a qdrant of its own, which MILLSTREAM_TEST_QDRANT_COMMAND would start"
)


def summary(**variables: str) -> str:
    """What pytest prints when it collects the files."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *FILES],
        env=bare_environ(**NONE_GIVEN | variables), cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {
                "MILLSTREAM_TEST_TEI_URL": "http://tei.test",
                "MILLSTREAM_TEST_QDRANT_URL": "http://qdrant.test",
            },
            {OTHER_TEI, SHARED_TEI, SHARED_QDRANT},
        ),
        ({"MILLSTREAM_TEST_TEI_COMMAND": "router --port {port}"}, {OTHER_TEI}),
    ],
)
def test_the_last_lines_say_how_many_tests_were_left_out_and_why(
    variables: dict[str, str], expected: set[str]
) -> None:
    collected = summary(**variables)
    lines = [line for line in collected.splitlines() if "left out" in line]
    assert {line.partition(" ")[2] for line in lines} == expected
    assert all(int(line.partition(" ")[0]) > 0 for line in lines)
    assert "test_info_tells_model_version_and_limits[stand-in]" in collected
    is_shared = "MILLSTREAM_TEST_TEI_URL" in variables
    assert ("test_info_tells_model_version_and_limits[embedded]" in collected) == (not is_shared)
