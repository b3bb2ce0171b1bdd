"""The four services as child processes on a stack, each with as many replicas as asked for.

async with Stack(...) as stack, Services(stack, replicas={"embedder": 2}) as services:
    services.url
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from local.logtail import LogTail
from local.process import Command
from local.program import LOOPBACK, Program, http_probe
from local.servers import python_module
from local.stack import Stack
from shared.service.errors import ConfigurationError

# In the order of stopping: what is upstream first, so that nothing new arrives at what drains next.
SERVICES = ("ingest", "chunker", "embedder", "indexer")
INGEST_PORT = 50108

_STOP_GRACE = 30.0  # seconds; above WEBHOOK_DRAIN_TIMEOUT
_START_TIMEOUT = 60.0
_MAX_LOG_BYTES = 16 * 1024 * 1024

OnLine = Callable[[str, str], None]


class Services:
    """Running services.

    `replicas` counts per service, 1 if it is not named, 0 for none. `ingest_port` is for the first ingest. `on_line`
    gets every line that a service prints, after the service's name ("embedder-2"). `command` gives a service's command.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        replicas: Mapping[str, int] | None = None,
        ingest_port: int | None = None,
        on_line: OnLine | None = None,
        command: Callable[[str], Sequence[str]] = python_module,
    ) -> None:
        self.environment: dict[str, str] = {}
        self._stack = stack
        self._replicas = dict.fromkeys(SERVICES, 1) | dict(replicas or {})
        self._ingest_port = ingest_port
        self._on_line = on_line
        self._command = command
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the first ingest answers."""
        return self.environment["MILLSTREAM_URL"]

    async def __aenter__(self) -> Self:
        """Start all and return when all are ready and stack.env and services.json are written.

        Raises ConfigurationError (unknown service, port taken) or StartError; in both cases no service is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove both files and stop service by service, each with 30 s to drain."""
        await self._cleanup.aclose()

    async def _start(self) -> None:
        if unknown := sorted(self._replicas.keys() - set(SERVICES)):
            raise ConfigurationError(f"{unknown[0]} is not a service: there are {', '.join(SERVICES)}")
        fleet = self._stack.fleet
        ports = {(name, replica): self._port(name, replica) for name, replica in self._members()}
        self.environment = self._stack.environment | self._addresses(ports)
        programs = [self._program(name, replica, port) for (name, replica), port in ports.items()]
        if self._on_line is not None:
            for program in programs:
                self._follow(program.command, self._on_line)
        for name in reversed(SERVICES):
            self._cleanup.push_async_callback(fleet.stop, name)
        self._cleanup.callback(fleet.withdraw)
        await fleet.start(programs)
        fleet.publish(self.environment)

    def _members(self) -> Iterator[tuple[str, int]]:
        for name in SERVICES:
            for replica in range(1, self._replicas[name] + 1):
                yield name, replica

    def _port(self, name: str, replica: int) -> int:
        member = f"{name}-{replica}"
        if replica > 1:
            return self._stack.ports.take(member)
        if name == "ingest" and self._ingest_port is not None:
            return self._stack.ports.take_exactly(member, self._ingest_port)
        if setting := self._stack.environ.get(_port_variable(name)):
            return self._stack.ports.take_exactly(member, _port_number(name, setting))
        return self._stack.ports.take(member, INGEST_PORT if name == "ingest" else None)

    def _addresses(self, ports: Mapping[tuple[str, int], int]) -> dict[str, str]:
        urls = {name: self._url(port) for (name, replica), port in ports.items() if replica == 1}
        variables = {"ingest": "MILLSTREAM_URL", "indexer": "WEBHOOK_SEARCH_URL"}
        addresses = {variable: urls[name] for name, variable in variables.items() if name in urls}
        if search_url := self._stack.environ.get("WEBHOOK_SEARCH_URL"):
            addresses["WEBHOOK_SEARCH_URL"] = search_url
        return addresses

    def _url(self, port: int) -> str:
        host = self._stack.environ.get("WEBHOOK_HOST", LOOPBACK)
        return f"http://{LOOPBACK if host in {'0.0.0.0', '::'} else host}:{port}"  # noqa: S104 - no bind

    def _program(self, name: str, replica: int, port: int) -> Program:
        environment = {_port_variable(name): str(port), "PYTHONUNBUFFERED": "1"}
        url = self._url(port)
        log_path = self._stack.data_dir / "logs" / f"{name}-{replica}.log"
        _rotate(log_path)
        return Program(
            service=name,
            replica=replica,
            url=url,
            command=Command(
                name=f"{name}-{replica}",
                argv=tuple(self._command(name)),
                env={**self._stack.environ, **self.environment, **environment},
                log_path=log_path,
                stop_grace=_STOP_GRACE,
            ),
            is_ready=http_probe(f"{url}/readyz"),
            start_timeout=_START_TIMEOUT,
        )

    def _follow(self, command: Command, on_line: OnLine) -> None:
        tail = LogTail(command.log_path, lambda line: on_line(command.name, line))
        task = asyncio.create_task(tail.follow(), name=f"tail-{command.name}")

        async def finish() -> None:
            task.cancel()
            await asyncio.wait([task])
            tail.finish()

        self._cleanup.push_async_callback(finish)


def _port_variable(name: str) -> str:
    return f"WEBHOOK_{name.upper()}_PORT"


def _port_number(name: str, setting: str) -> int:
    if not setting.isdecimal() or not 0 < int(setting) < 65536:
        raise ConfigurationError(f"{_port_variable(name)} is not a port: {setting!r}")
    return int(setting)


def _rotate(log_path: Path) -> None:
    if log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
