"""One child process: start it, wait until it is ready, stop it. The fleet restarts it (fleet.py).

On Linux the kernel signals the child when its parent dies, however it dies. The stack's guard
(guard.py) stops children that do not end by this signal.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from local.pidfile import descendants
from shared.service.errors import MillstreamError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PROBE_INTERVAL = 0.02  # seconds; the fastest server is ready after 40 ms
_SHOWN_LOG_LINES = 12
_SHOWN_LOG_BYTES = 4096

Probe = Callable[[], Awaitable[bool]]


class StartError(MillstreamError):
    """A child process could not be executed, ended at once, or was not ready in time.

    The message shows the end of its log.
    """


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to execute, and how to stop it."""

    name: str  # in messages and file names: "redis", "embedder-2"
    argv: tuple[str, ...]
    env: Mapping[str, str]  # all of it, nothing is inherited
    log_path: Path  # stdout and stderr are appended
    cwd: Path | None = None
    uid: int | None = None  # user *and* group to run as; needs root
    stdin_path: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: float = 10.0  # seconds between the stop signal and SIGKILL


class ChildProcess:
    """A running child in a session of its own: Ctrl+C in the terminal reaches only the parent.

    Create it in a thread that lives as long as the parent (the main thread): Linux counts the end
    of the thread that forked as the parent's death. Raises StartError if it cannot be executed.
    """

    def __init__(self, command: Command, on_exit: Callable[[int], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._command = command
        self._on_exit = on_exit
        self._exit: asyncio.Future[int] = loop.create_future()
        log_path = command.log_path
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        self._popen = _spawn(command)
        reaper = threading.Thread(
            target=self._reap, args=(loop,), name=f"wait-{command.name}", daemon=True
        )
        reaper.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return not self._exit.done()

    async def wait(self) -> int:
        """The exit status, as subprocess gives it: negative for the signal that ended it."""
        return await asyncio.shield(self._exit)

    async def wait_until_ready(self, is_ready: Probe, timeout: float) -> None:
        """Call `is_ready` until it returns true.

        Raises StartError after `timeout` seconds or when the process ends.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.is_running and not await is_ready():  # noqa: ASYNC110 - no event
                    await asyncio.sleep(_PROBE_INTERVAL)
        except TimeoutError:
            raise StartError(self._with_log(f"was not ready within {timeout:g} s")) from None
        if self._exit.done():
            ended = describe_exit(self._exit.result())
            raise StartError(self._with_log(f"ended with {ended} before it was ready"))

    async def require_success(self, timeout: float) -> None:
        """Wait for a process that ends by itself. Raises StartError unless its status is 0.

        The process has ended in every case.
        """
        try:
            async with asyncio.timeout(timeout):
                status = await self.wait()
        except TimeoutError:
            raise StartError(self._with_log(f"took longer than {timeout:g} s")) from None
        finally:
            await self.stop()
        if status != 0:
            raise StartError(self._with_log(f"ended with {describe_exit(status)}"))

    async def stop(self) -> int:
        """Signal, wait for the grace period, then SIGKILL; returns the exit status.

        Cancelling it kills the process at once.
        """
        if self.is_running:
            wake([self.pid, *descendants(self.pid)])  # a frozen one would not answer the signal
            self._popen.send_signal(self._command.stop_signal)
        try:
            return await asyncio.wait_for(self.wait(), self._command.stop_grace)
        except TimeoutError:
            self._popen.kill()
            return await self.wait()
        except asyncio.CancelledError:
            self._popen.kill()
            raise

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        status = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
            loop.call_soon_threadsafe(self._ended, status)

    def _ended(self, status: int) -> None:
        # Its own children must not outlive it. It led a session, so it led a process group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._exit.set_result(status)
        if self._on_exit is not None:
            self._on_exit(status)

    def _with_log(self, reason: str) -> str:
        path = self._command.log_path
        with path.open("rb") as log:
            log.seek(max(self._log_start, path.stat().st_size - _SHOWN_LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
        return "\n  ".join([f"{self._command.name} {reason}; see {path}", *lines])


def describe_exit(status: int) -> str:
    """An exit status in words: "exit status 3", "signal SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:  # real-time signals have no names
        return f"signal {-status}"


def _spawn(command: Command) -> subprocess.Popen[bytes]:
    command.log_path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as files:
        # A file, not a pipe: a service must be able to log after its parent was killed.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(command.log_path, flags, 0o600)
        files.callback(os.close, descriptor)
        stdin = files.enter_context((command.stdin_path or Path(os.devnull)).open("rb"))
        try:
            return subprocess.Popen(  # noqa: S603 - the argument list is built here, no shell
                command.argv,
                stdin=stdin,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=command.env,
                cwd=command.cwd,
                user=command.uid,
                group=command.uid,
                extra_groups=None if command.uid is None else [],
                start_new_session=True,
                # Only two system calls between fork and exec.
                preexec_fn=_end_with_parent(command.stop_signal),  # noqa: PLW1509
            )
        except OSError as error:
            raise StartError(f"{command.name} cannot be executed: {error}") from error


def _end_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child calls between fork and exec, after the change of user, which resets it."""
    if sys.platform != "linux":
        return None
    # PyDLL keeps the GIL, so nothing in the forked child has to be locked again.
    prctl = ctypes.PyDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]
    parent = os.getpid()

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent:  # it died before the call above: no signal will come
            os._exit(1)

    return request_signal


def wake(pids: Iterable[int]) -> None:
    """Let processes go on that are frozen (SIGSTOP)."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)
