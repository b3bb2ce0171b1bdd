"""A Redis with a clock that can be set while it runs: libfaketime returns the time to it."""

import contextlib
import ctypes
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from local.redis import redis_program
from local.servers import URL_VARIABLES
from local.stack import Stack

# In a scenario's environment, with any value: its Redis has such a clock.
OWN_CLOCK = "MILLSTREAM_TORTURE_REDIS_CLOCK"


def find_library() -> Path | None:
    """The library of the libfaketime wheel; None if it is missing or made for another machine."""
    # Found, never imported: the import needs time zones.
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    try:
        ctypes.CDLL(str(path))
    except OSError:
        return None
    return path


class Clock:
    """The clock, by the file that libfaketime looks into at every question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)

    def set(self, seconds: int) -> None:
        """From now on the clock is so much ahead of the true time, or behind it."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._path)

    def environment(self, library: Path) -> dict[str, str]:
        """The variables of a process with this clock. Its monotonic clock stays true."""
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@contextlib.asynccontextmanager
async def redis_with_clock(stack: Stack, library: Path) -> AsyncIterator[Clock]:
    """Run the stack's Redis, which it must have been made without, by a clock of its own."""
    clock = Clock(stack.data_dir / "clock")
    program = redis_program(stack.data_dir, stack.fleet.ports.take("redis"), None)
    environment = {**program.command.env, **clock.environment(library)}
    command = msgspec.structs.replace(program.command, env=environment)
    await stack.fleet.start([msgspec.structs.replace(program, command=command)])
    stack.environment[URL_VARIABLES["redis"]] = program.url
    try:
        yield clock
    finally:
        await stack.fleet.stop("redis")
