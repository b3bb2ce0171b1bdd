"""A process beside the stack that stops the stack's children once the stack's own process is gone.

The kernel sends the children a signal at that moment, too (process.py). The guard is for those
that do not end by it: a frozen process, and what Postgres has started. It also works where the
kernel cannot send one.

`python -m local.guard DIRECTORY PID` reads standard input to its end. The other end of that pipe is
open in the stack's process PID only, so that the kernel closes it however that process ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def guarded(pid_directory: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """If this process ends within the block, the processes with a pid file are stopped."""
    read_end, write_end = os.pipe()
    try:
        guard = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            [sys.executable, "-P", "-m", "local.guard", str(pid_directory), str(os.getpid())],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl+C nor a kill of this process group reaches it
        )
    except OSError as error:
        notify(f"no guard stops the servers if this process is killed: {error}")
        guard = None
    os.close(read_end)
    try:
        yield
    finally:
        os.close(write_end)
        if guard is not None:
            guard.wait()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    directory, stack = Path(sys.argv[1]), int(sys.argv[2])
    sys.stdin.buffer.read()
    if any(directory.glob("*.pid")):
        # Imported now, because it waits for hours: that takes 12 MB of memory instead of 50.
        import asyncio  # noqa: PLC0415

        from local.pidfile import PidFiles  # noqa: PLC0415

        # The directory may have the next stack already, which this one must not stop.
        asyncio.run(PidFiles(directory).stop_recorded(stack))


if __name__ == "__main__":
    main()
