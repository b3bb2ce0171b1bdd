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
from local.program import LOOPBACK, Program, service_probe
from local.servers import python_module
from local.stack import Stack
from shared.pipeline.stages import StageName
from shared.service.errors import ConfigurationError

# In the order of stopping: the upstream service first, so that nothing new arrives at the next.
SERVICES = ("ingest", *map(str, StageName))

_STOP_GRACE = 30.0  # seconds; above WEBHOOK_DRAIN_TIMEOUT
_START_TIMEOUT = 60.0
_MAX_LOG_BYTES = 16 * 1024 * 1024

OnLine = Callable[[str, str], None]


class Services:
    """Running services.

    `replicas` counts per service: 1 if it is not named, 0 for none. `ingest_port` is the port of
    the first ingest, which otherwise gets `default_ingest_port` if that is free. `on_line` gets
    every line that a service prints, after the service's name ("embedder-2"). `command` gives a
    service's command.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        replicas: Mapping[str, int] | None = None,
        ingest_port: int | None = None,
        default_ingest_port: int | None = None,
        on_line: OnLine | None = None,
        command: Callable[[str], Sequence[str]] = python_module,
    ) -> None:
        self.environment: dict[str, str] = {}
        self._stack = stack
        self._replicas = dict.fromkeys(SERVICES, 1) | dict(replicas or {})
        self._ingest_port = ingest_port
        self._default_ingest_port = default_ingest_port
        self._on_line = on_line
        self._command = command
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL of the first ingest."""
        return self.environment["MILLSTREAM_URL"]

    async def __aenter__(self) -> Self:
        """Start all; return when all are ready and stack.env and services.json are written.

        Raises ConfigurationError (unknown service, port in use) or StartError; in both cases no
        service is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove both files and stop service by service, each with 30 s to drain."""
        await self._cleanup.aclose()

    async def _start(self) -> None:
        if unknown := sorted(self._replicas.keys() - set(SERVICES)):
            known = ", ".join(SERVICES)
            raise ConfigurationError(f"{unknown[0]} is not a service: there are {known}")
        fleet = self._stack.fleet
        for name, replica in self._members():
            self._prepare_log(f"{name}-{replica}")
        for name in reversed(SERVICES):
            self._cleanup.push_async_callback(fleet.stop, name)
        self._cleanup.callback(fleet.withdraw)
        await fleet.start_on_free_ports(self._programs)
        self._warn_of_lost_default()
        fleet.publish(self.environment)

    async def _programs(self) -> list[Program]:
        ports = {(name, replica): self._port(name, replica) for name, replica in self._members()}
        self.environment = self._stack.environment | self._addresses(ports)
        return [self._program(name, replica, port) for (name, replica), port in ports.items()]

    def _members(self) -> Iterator[tuple[str, int]]:
        for name in SERVICES:
            for replica in range(1, self._replicas[name] + 1):
                yield name, replica

    def _port(self, name: str, replica: int) -> int:
        ports = self._stack.fleet.ports
        member = f"{name}-{replica}"
        if replica == 1 and (wanted := self._wanted_port(name)) is not None:
            return ports.take_exactly(member, wanted) if wanted else ports.take(member)
        is_main = member == "ingest-1"
        return ports.take(member, self._default_ingest_port if is_main else None)

    def _wanted_port(self, name: str) -> int | None:
        """The port that was set for the first replica; 0 = a free one, None = not set."""
        if name == "ingest" and self._ingest_port is not None:
            return self._ingest_port
        setting = self._stack.environ.get(_port_variable(name))
        return None if setting is None else _port_number(name, setting)

    def _warn_of_lost_default(self) -> None:
        default = self._default_ingest_port
        if default is None or not self._replicas["ingest"]:
            return
        if self._wanted_port("ingest") is None and not self.url.endswith(f":{default}"):
            self._stack.notify(
                f"WARNING: port {default}, the default of ingest, is used by another process. "
                f"Ingest listens at {self.url} instead: what is sent to port {default} does not "
                "reach this stack."
            )

    def _addresses(self, ports: Mapping[tuple[str, int], int]) -> dict[str, str]:
        urls = {name: self._url(port) for (name, replica), port in ports.items() if replica == 1}
        variables = {"ingest": "MILLSTREAM_URL", "indexer": "WEBHOOK_SEARCH_URL"}
        addresses = {variable: urls[name] for name, variable in variables.items() if name in urls}
        if search_url := self._stack.environ.get("WEBHOOK_SEARCH_URL"):
            addresses["WEBHOOK_SEARCH_URL"] = search_url
        return addresses

    def _url(self, port: int) -> str:
        host = self._stack.environ.get("WEBHOOK_HOST", LOOPBACK)
        is_any = host in {"0.0.0.0", "::"}  # noqa: S104 - no bind
        return f"http://{LOOPBACK if is_any else host}:{port}"

    def _program(self, name: str, replica: int, port: int) -> Program:
        environment = {_port_variable(name): str(port), "PYTHONUNBUFFERED": "1"}
        url = self._url(port)
        return Program(
            service=name,
            replica=replica,
            port=port,
            url=url,
            command=Command(
                name=f"{name}-{replica}",
                argv=tuple(self._command(name)),
                env={**self._stack.environ, **self.environment, **environment},
                log_path=self._log_path(f"{name}-{replica}"),
                stop_grace=_STOP_GRACE,
            ),
            is_ready=service_probe(url),
            start_timeout=_START_TIMEOUT,
        )

    def _log_path(self, member: str) -> Path:
        return self._stack.data_dir / "logs" / f"{member}.log"

    def _prepare_log(self, member: str) -> None:
        """Rotate the log if it is long, and follow it from here if someone reads the lines."""
        log_path = self._log_path(member)
        if log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
        if self._on_line is not None:
            self._follow(member, log_path, self._on_line)

    def _follow(self, member: str, log_path: Path, on_line: OnLine) -> None:
        tail = LogTail(log_path, lambda line: on_line(member, line))
        task = asyncio.create_task(tail.follow(), name=f"tail-{member}")

        async def finish() -> None:
            task.cancel()
            await asyncio.wait([task])
            tail.finish()

        self._cleanup.push_async_callback(finish)


def _port_variable(name: str) -> str:
    return f"WEBHOOK_{name.upper()}_PORT"


def _port_number(name: str, setting: str) -> int:
    if not setting.isdecimal() or not int(setting) < 65536:
        raise ConfigurationError(
            f"invalid value for {_port_variable(name)}: "
            f"expected a port, 0 for a free one, found {setting!r}"
        )
    return int(setting)
