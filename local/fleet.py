"""Keeps programs running: starts and restarts them, and lists them in two files.

The files are `stack.env` (how to reach the stack) and `services.json` (the processes). They are
written in this order: a reader of the second can rely on the first.
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from local.datadir import write_private
from local.pidfile import PidFiles
from local.ports import PortBook, is_free
from local.process import ChildProcess, StartError, describe_exit
from local.program import Program
from shared.service.errors import MillstreamError

Notify = Callable[[str], None]

_PORT_ATTEMPTS = 3


class PortLostError(StartError):
    """Another process listened on the program's port before the program did."""

    def __init__(self, program: Program, reason: str) -> None:
        super().__init__(f"port {program.port} was taken by another process: {reason}")
        self.name = program.command.name


class ProcessRow(msgspec.Struct, frozen=True):
    """One entry of services.json."""

    service: str
    replica: int
    pid: int
    url: str


class Supervisor:
    """One program, from its first start until it is stopped."""

    def __init__(self, program: Program, fleet: "Fleet") -> None:
        self.program = program
        self._fleet = fleet
        self._child: ChildProcess | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def row(self) -> ProcessRow | None:
        """None before the first start."""
        if self._child is None:
            return None
        program = self.program
        return ProcessRow(program.service, program.replica, self._child.pid, program.url)

    async def start(self) -> None:
        """Return when the program is ready. Raises StartError, having stopped it."""
        child = await self._spawn()
        try:
            await child.wait_until_ready(
                lambda: self.program.is_ready(child.pid), self.program.start_timeout
            )
        except StartError as error:
            await self.stop()
            if not is_free(self.program.port):
                raise PortLostError(self.program, str(error)) from error
            raise
        except BaseException:
            await self.stop()
            raise
        name = f"watch-{self.program.command.name}"
        self._watcher = asyncio.create_task(self._watch(child), name=name)

    async def stop(self) -> None:
        """End the program; it is not started again."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if self._child is not None:
            await self._child.stop()
            self._fleet.pid_files.forget(self.program.command.name)

    async def _spawn(self) -> ChildProcess:
        if self.program.prepare is not None:
            await self.program.prepare()
        command = self.program.command
        child = self._child = ChildProcess(command)
        self._fleet.pid_files.record(command.name, child.pid, command.stop_signal)
        return child

    async def _watch(self, child: ChildProcess) -> None:
        name = self.program.command.name
        delay = self._fleet.restart_delay
        while True:
            ended = f"{name} ended with {describe_exit(await child.wait())}"
            if delay is None:
                self._fleet.notify(f"{ended}; see {self.program.command.log_path}")
                return
            self._fleet.notify(f"{ended}; it is started again in {delay:g} s")
            child = await self._respawn(delay)
            self._fleet.notify(f"{name} was started again (pid {child.pid})")
            self._fleet.rewrite_files()

    async def _respawn(self, delay: float) -> ChildProcess:
        while True:
            await asyncio.sleep(delay)
            try:
                return await self._spawn()
            except (MillstreamError, OSError) as error:
                name = self.program.command.name
                self._fleet.notify(f"{name} could not be started again: {error}")


class Fleet:
    """All programs of one data directory.

    `restart_delay` is in seconds; None = a program that dies is not restarted.
    """

    def __init__(self, data_dir: Path, notify: Notify, restart_delay: float | None) -> None:
        self.notify = notify
        self.restart_delay = restart_delay
        self.pid_files = PidFiles(data_dir / "run")
        self.ports = PortBook(data_dir / "run" / "ports.json")
        self.environment_path = data_dir / "stack.env"
        self.rows_path = data_dir / "services.json"
        self._supervisors: list[Supervisor] = []
        self._environment: Mapping[str, str] | None = None

    @property
    def rows(self) -> list[ProcessRow]:
        """What has been started, in that order; a dead process keeps its row until its restart."""
        rows = [supervisor.row for supervisor in self._supervisors]
        return [row for row in rows if row is not None]

    async def stop_leftovers(self) -> None:
        """Remove what an earlier process left in this directory: its files, its children."""
        self.withdraw()
        for name in await self.pid_files.stop_leftovers():
            self.notify(f"{name} was still running from an earlier start and has been stopped")

    async def start(self, programs: Iterable[Program]) -> None:
        """Start all at the same time and return when all are ready.

        Raises the first error, having stopped all of them.
        """
        supervisors = [Supervisor(program, self) for program in programs]
        self._supervisors += supervisors
        try:
            async with asyncio.TaskGroup() as group:
                for supervisor in supervisors:
                    name = f"start-{supervisor.program.command.name}"
                    group.create_task(supervisor.start(), name=name)
        except BaseExceptionGroup as errors:
            await self._stop(supervisors)
            raise _first(errors) from None

    async def start_on_free_ports(self, build: Callable[[], Awaitable[list[Program]]]) -> None:
        """Start what `build` returns, which takes the ports of its programs from `ports`.

        A program that loses its port to another process is built and started with another port.
        Raises what `start` and `build` raise.
        """
        for _ in range(_PORT_ATTEMPTS):
            programs = await build()
            try:
                return await self.start(programs)
            except PortLostError as error:
                self.ports.give_up(error.name)
                lost = error
        raise lost

    async def stop(self, service: str) -> None:
        """Stop every replica of a service or server at the same time."""
        await self._stop([each for each in self._supervisors if each.program.service == service])

    def publish(self, environment: Mapping[str, str]) -> None:
        """Write both files, and rewrite `services.json` after every restart from now on."""
        self._environment = dict(environment)
        self.rewrite_files()

    def withdraw(self) -> None:
        """Remove both files: what they say is no longer true."""
        self._environment = None
        for path in (self.rows_path, self.environment_path):
            path.unlink(missing_ok=True)

    def rewrite_files(self) -> None:
        """Bring both files up to date, if they have been published."""
        if self._environment is not None:
            write_private(self.environment_path, shell_assignments(self._environment).encode())
            write_private(self.rows_path, msgspec.json.format(msgspec.json.encode(self.rows)))

    async def _stop(self, supervisors: list[Supervisor]) -> None:
        async with asyncio.TaskGroup() as group:
            for supervisor in supervisors:
                name = f"stop-{supervisor.program.command.name}"
                group.create_task(supervisor.stop(), name=name)
        for supervisor in supervisors:
            self._supervisors.remove(supervisor)


def shell_assignments(environment: Mapping[str, str]) -> str:
    """A line NAME=VALUE each, quoted so that a shell reads exactly these values."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
