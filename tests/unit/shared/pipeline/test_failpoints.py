"""Failpoints: every one stands in the code, only in test mode are they heeded, and the n-th hit is
the last.
"""

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.pipeline.failpoints import POINTS, arm
from shared.pipeline.stages import StageName
from shared.service.errors import ConfigurationError

ROOT = Path(__file__).parents[4]
HIT = (
    "import sys; from shared.pipeline.failpoints import arm, failpoint; "
    "arm(sys.argv[1], test_mode=True)\n"
)


def points_in_the_code() -> Iterator[str]:
    """The arguments of each call; the stage's name is a variable where all stages come by."""
    for package in ("ingest", "chunker", "embedder", "indexer", "shared"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id == "failpoint"
                ):
                    part, moment = node.args
                    assert isinstance(moment, ast.Constant)
                    parts = [str(part.value)] if isinstance(part, ast.Constant) else list(StageName)
                    yield from (f"{name}.{moment.value!s}" for name in parts)


def test_every_failpoint_is_called_once_in_the_code_and_none_besides() -> None:
    assert sorted(points_in_the_code()) == sorted(POINTS)


def test_outside_test_mode_a_failpoint_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_TEST_MODE"):
        arm("chunker.taken:kill@1", test_mode=False)


@pytest.mark.parametrize(
    "setting", ["chunker.taken", "chunker.taken:kill@0", "chunker.taken:exit@1", "no.such:kill@1"]
)
def test_a_setting_that_is_no_failpoint_stops_the_start(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=r"points: .*chunker\.taken"):
        arm(setting, test_mode=True)


def test_without_a_setting_nothing_is_armed() -> None:
    arm("", test_mode=False)


def test_the_hit_that_was_asked_for_kills_the_process() -> None:
    script = (
        HIT + "for n in '123': print(n, flush=True), "
        "failpoint('chunker', 'begun'), failpoint('chunker', 'taken')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "chunker.taken:kill@2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == -signal.SIGKILL
    *counted, log_line = ended.stdout.splitlines()
    assert counted == ["1", "2"]
    assert "Failpoint reached" in log_line


def test_a_process_that_was_stopped_at_a_failpoint_can_go_on() -> None:
    script = HIT + "failpoint('chunker', 'taken'); print('on')"
    with subprocess.Popen(
        [sys.executable, "-c", script, "chunker.taken:stop@1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert process.poll() is None
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0].endswith("on\n")
