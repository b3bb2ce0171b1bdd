"""Child processes: start, readiness and end, also after a kill of their parent."""

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from local.pidfile import PidFiles, PidRecord, process_identity
from local.process import ChildProcess, Command, StartError
from tests.support.local_stack import bare_environ, is_alive, read_line, running, running_script
from tests.support.waiting import wait_until

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); signal.pause()"


def command(tmp_path: Path, *argv: str, stop_grace: float = 5.0) -> Command:
    return Command(
        name="child",
        argv=argv,
        env=bare_environ(),
        log_path=tmp_path / "child.log",
        stop_grace=stop_grace,
    )


async def never() -> bool:
    return False


async def always() -> bool:
    return True


async def test_a_child_ends_by_its_stop_signal(tmp_path: Path) -> None:
    child = ChildProcess(command(tmp_path, "sleep", "60"))
    await child.wait_until_ready(always, timeout=5)

    assert await child.stop() == -signal.SIGTERM
    assert not is_alive(child.pid)


async def test_a_child_that_ignores_its_stop_signal_is_killed_after_the_grace_period(
    tmp_path: Path,
) -> None:
    child = ChildProcess(command(tmp_path, sys.executable, "-c", STUBBORN, stop_grace=0.1))
    await wait_until(
        lambda: "set" in (tmp_path / "child.log").read_text(), description="the signal is ignored"
    )

    assert await child.stop() == -signal.SIGKILL


async def test_cancelling_a_stop_kills_at_once(tmp_path: Path) -> None:
    child = ChildProcess(command(tmp_path, sys.executable, "-c", STUBBORN, stop_grace=60))
    await wait_until(
        lambda: "set" in (tmp_path / "child.log").read_text(), description="the signal is ignored"
    )
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)

    stopping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await asyncio.wait_for(child.wait(), 5) == -signal.SIGKILL


async def test_an_exit_is_told_with_its_status(tmp_path: Path) -> None:
    told: list[int] = []

    child = ChildProcess(command(tmp_path, "sh", "-c", "exit 3"), on_exit=told.append)

    assert await child.wait() == 3
    assert told == [3]
    assert await child.stop() == 3


async def test_a_child_that_ends_before_it_is_ready_shows_the_end_of_its_own_log(
    tmp_path: Path,
) -> None:
    (tmp_path / "child.log").write_text("an old line\n")
    child = ChildProcess(command(tmp_path, "sh", "-c", "echo no such disk; exit 4"))

    with pytest.raises(
        StartError, match="child ended with exit status 4 before it was ready"
    ) as error:
        await child.wait_until_ready(never, timeout=5)

    assert "no such disk" in str(error.value)
    assert "an old line" not in str(error.value)


async def test_a_child_that_is_never_ready_is_told_after_the_deadline(tmp_path: Path) -> None:
    child = ChildProcess(command(tmp_path, "sleep", "60"))
    try:
        with pytest.raises(StartError, match=r"was not ready within 0\.1 s"):
            await child.wait_until_ready(never, timeout=0.1)
    finally:
        await child.stop()


async def test_a_command_that_does_not_exist_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be executed"):
        ChildProcess(command(tmp_path, "/nowhere/to/be/found"))


async def test_what_a_child_started_itself_ends_with_it(tmp_path: Path) -> None:
    child = ChildProcess(command(tmp_path, "sh", "-c", "sleep 60 & echo $!; wait"))
    log = tmp_path / "child.log"
    await wait_until(
        lambda: log.read_text().endswith("\n"), description="the grandchild's pid is printed"
    )

    await child.stop()

    await wait_until(
        lambda: not is_alive(int(log.read_text())), description="the grandchild is gone"
    )


async def test_a_process_that_takes_too_long_to_end_is_stopped(tmp_path: Path) -> None:
    child = ChildProcess(command(tmp_path, "sleep", "60"))

    with pytest.raises(StartError, match="took longer"):
        await child.require_success(timeout=0.1)

    assert not child.is_running


PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from local.process import ChildProcess, Command

async def main():
    command = Command(name="child", argv=("sleep", "60"), env=dict(os.environ), log_path=Path(sys.argv[1]))
    print(ChildProcess(command).pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a request to the Linux kernel")
async def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with running_script(PARENT, str(tmp_path / "child.log")) as parent:
        pid = int(read_line(parent))
        assert is_alive(pid)

        parent.kill()

        await wait_until(lambda: not is_alive(pid), description="the child is gone")


async def test_leftovers_of_an_earlier_parent_are_stopped(tmp_path: Path) -> None:
    pid_files = PidFiles(tmp_path)
    with running("sleep", "60") as leftover:
        pid_files.record("redis", leftover.pid, signal.SIGTERM)

        assert await PidFiles(tmp_path).stop_leftovers() == ["redis"]

        assert leftover.wait(timeout=1) == -signal.SIGTERM
    assert await pid_files.stop_leftovers() == []


async def test_a_process_that_only_has_the_pid_of_a_leftover_is_not_touched(tmp_path: Path) -> None:
    with running("sleep", "60") as stranger:
        record = PidRecord("redis", stranger.pid, "an earlier start", signal.SIGTERM)
        (tmp_path / "redis.pid").write_bytes(msgspec.json.encode(record))

        assert await PidFiles(tmp_path).stop_leftovers() == []

        assert stranger.poll() is None


async def test_a_damaged_pid_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "redis.pid").write_bytes(b"{")

    assert await PidFiles(tmp_path).stop_leftovers() == []
    assert not (tmp_path / "redis.pid").exists()


def test_a_process_has_an_identity_as_long_as_it_runs() -> None:
    with running("sleep", "60") as process:
        identity = process_identity(process.pid)
        assert identity is not None
        assert process_identity(process.pid) == identity
        process.kill()

    assert process_identity(process.pid) is None
