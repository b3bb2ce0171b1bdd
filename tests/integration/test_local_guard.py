"""Nothing is left running by a stack or a test run that is killed, whatever its processes do."""

import functools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from local.pidfile import PidFiles, PidRecord, descendants
from tests.support.local_stack import (
    bare_environ,
    enterable_directory,
    is_alive,
    read_line,
    running,
    running_script,
)
from tests.support.run_guard import MARK
from tests.support.waiting import block_until

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "support" / "tiny_service.py"

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

STACK = """
import asyncio, os, signal, sys
from pathlib import Path
from local.services import Services
from local.stack import Stack

async def main():
    stack = Stack(Path(sys.argv[1]), os.environ, parts=[])
    command = lambda name: (sys.executable, sys.argv[2], name)
    async with stack, Services(stack, command=command):
        print("started", flush=True)
        await asyncio.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
asyncio.run(main())
"""

RUN = """
import subprocess, sys, time
from tests.support.run_guard import guarded_run

with guarded_run():
    subprocess.Popen(["sh", "-c", sys.argv[1]])
    time.sleep(60)
"""

TEST = """
import subprocess, time
from pathlib import Path
from tests.support.qdrant_process import running_qdrant
from tests.support.waiting import block_until

def test_that_lasts(tmp_path):
    with running_qdrant(tmp_path / "data"):
        sleeper = subprocess.Popen(["sleep", "60"])
        Path({started!r}).write_text(str(sleeper.pid))
        time.sleep(60)
"""


def recorded(directory: Path) -> list[PidRecord]:
    """The pid files of a stack."""
    files = sorted(directory.glob("run/*.pid"))
    return [msgspec.json.decode(path.read_bytes(), type=PidRecord) for path in files]


def is_guard(pid: int) -> bool:
    """Whether it is one of the processes that stop the others; frozen, it could not."""
    command = Path(f"/proc/{pid}/cmdline").read_text()
    return "local.guard" in command or "run_guard" in command


def until_gone(pids: list[int], timeout: float = 40) -> None:
    block_until(
        lambda: not any(map(is_alive, pids)), timeout=timeout, description=f"the end of {pids}"
    )


@pytest.mark.parametrize("is_frozen", [False, True])
def test_services_end_with_a_stack_that_is_killed(tmp_path: Path, is_frozen: bool) -> None:
    with running_script(STACK, str(tmp_path), str(TINY)) as stack:
        assert read_line(stack) == "started"
        pids = [record.pid for record in recorded(tmp_path)]
        assert len(pids) == 4
        if is_frozen:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)

        stack.kill()

        until_gone(pids)


def test_the_guard_ends_with_its_stack(tmp_path: Path) -> None:
    with running_script(STACK, str(tmp_path), str(TINY)) as stack:
        assert read_line(stack) == "started"
        guards = set(descendants(stack.pid)) - {record.pid for record in recorded(tmp_path)}
        assert len(guards) == 1

        stack.send_signal(signal.SIGINT)

        until_gone([*guards, stack.pid])


def test_the_guard_of_a_dead_stack_spares_the_next_stack_of_its_directory(tmp_path: Path) -> None:
    with running("true") as dead, running("sleep", "60") as child:
        dead.wait()
        PidFiles(tmp_path).record("child", child.pid, signal.SIGTERM)

        guard = [sys.executable, "-P", "-m", "local.guard", str(tmp_path), str(dead.pid)]
        subprocess.run(guard, stdin=subprocess.DEVNULL, check=True, timeout=60)

        assert child.poll() is None


@needs_proc
def test_a_test_run_that_is_killed_leaves_no_process_whatever_it_has_become(
    tmp_path: Path,
) -> None:
    log = tmp_path / "pids"
    # One in a session of its own, one whose parent has ended, one that is frozen.
    sleeper = f"sh -c 'echo $$ >> {shlex.quote(str(log))}; exec sleep 60'"
    frozen = f"sh -c 'echo $$ >> {shlex.quote(str(log))}; kill -STOP $$; exec sleep 60'"
    with running_script(RUN, f"setsid {sleeper} & ({sleeper} &) & {frozen} & wait") as run:
        block_until(
            lambda: log.exists() and len(log.read_text().split()) == 3,
            description="three processes are started",
        )
        pids = [int(pid) for pid in log.read_text().split()]

        run.kill()

        until_gone(pids)


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """For a run of its own: with temporary files of its own, and without the mark of this run."""
    with enterable_directory() as directory:
        environ = bare_environ(TMPDIR=str(directory), PYTHONPATH=str(ROOT))
        yield {name: value for name, value in environ.items() if name != MARK}


@needs_proc
@pytest.mark.parametrize(("workers", "number"), [("0", signal.SIGTERM), ("1", signal.SIGKILL)])
def test_pytest_leaves_no_process_after(
    tmp_path: Path, environ: dict[str, str], workers: str, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    test = tmp_path / "test_lasting.py"
    test.write_text(TEST.format(started=str(started)))
    options = ["-q", "-p", "tests.conftest", "-n", workers, "--rootdir", str(tmp_path), str(test)]
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options], env=environ, cwd=tmp_path
    ) as run:
        block_until(started.exists, timeout=60, description="the test is in progress")
        pids = descendants(run.pid)
        assert int(started.read_text()) in pids

        run.send_signal(number)

        until_gone([run.pid, *pids])


@needs_proc
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_torture_run_leaves_no_process_after(
    environ: dict[str, str], number: signal.Signals
) -> None:
    directory = Path(environ["TMPDIR"])
    run_options = ["-m", "tests.torture", "--scenario", "3", "--short"]
    ignoring = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # as shells do for &
    with subprocess.Popen(
        [sys.executable, *run_options],
        env=environ,
        cwd=ROOT,
        preexec_fn=ignoring,  # noqa: PLW1509 - one thread
    ) as run:
        block_until(
            lambda: list(directory.glob("*/data/services.json")),
            timeout=100,
            description="the pipeline has started",
        )
        pids = descendants(run.pid)
        assert len(pids) > 12  # three servers, eight services, the helpers of Postgres
        for pid in [pid for pid in pids if not is_guard(pid)][::3]:
            with running("kill", "-STOP", str(pid)):
                pass

        run.send_signal(number)

        until_gone([run.pid, *pids], timeout=100)  # it stops server after server, each with grace
    assert number == signal.SIGKILL or not list(directory.glob("millstream-test-*"))
