"""The pipeline under torture: two replicas of every stage, proxies before Redis and Qdrant."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cli.commands.serve import apply_migrations
from local.program import http_probe
from local.servers import PARTS, QDRANT_KEY, python_module
from local.services import SERVICES, Services
from local.stack import Stack
from tests.support.local_stack import bare_environ, children, enterable_directory, is_alive
from tests.support.qdrant_process import API_KEY
from tests.support.tei_stand_in import StandInSettings, TeiStandIn
from tests.support.waiting import wait_until
from tests.torture.background import Background
from tests.torture.clock import OWN_CLOCK, Clock, find_library, redis_with_clock
from tests.torture.logs import Logs
from tests.torture.outside import (
    drop_outside_collections,
    given_qdrant,
    has_qdrant_command,
    outside_servers,
    outside_settings,
)
from tests.torture.proxy import Proxy
from tests.torture.service import ORDERS, order, take

LEASE = 3.0  # seconds
_SETTINGS = {
    "WEBHOOK_LEASE": f"{LEASE:g}s",
    "WEBHOOK_LEASE_RENEWAL": "500ms",
    "WEBHOOK_DRAIN_TIMEOUT": "5s",
    "WEBHOOK_SCRUB_INTERVAL": "1s",
    "WEBHOOK_TEST_MODE": "true",
}
_TEI_SECONDS = 0.2  # of each request, so that processes have work in hand when they are hurt
_RESTART_DELAY = 0.5
_START_TIMEOUT = 60.0
_PROXIED = {"redis": "WEBHOOK_REDIS_URL", "qdrant": "WEBHOOK_QDRANT_URL"}


class Rig:
    """A running pipeline and its faults. What dies is started again after half a second."""

    def __init__(
        self,
        stack: Stack,
        background: Background,
        proxies: Mapping[str, Proxy],
        tei: TeiStandIn,
        orders: Path,
    ) -> None:
        self.environment = dict(stack.environment)  # the servers' own URLs
        self.background = background
        self.proxies = proxies
        self.tei = tei  # to be touched in the background's thread, or by its plain methods
        self.clock: Clock | None = None  # of Redis, where it has one of its own
        self.url = ""
        # Servers of one's own have seen other runs: the sites of this one have other names.
        self.token = f"-{secrets.token_hex(2)}" if outside_servers() else ""
        self._stack = stack
        self._orders = orders

    def logs(self) -> Logs:
        """What the services log from now on."""
        return Logs(self._stack.data_dir / "logs")

    async def ready(self) -> None:
        """Return when every service is up and ready."""
        for url in self.stage_urls.values():
            await _ready(url)

    async def restart(self, pid: int) -> None:
        """Have a service end as in a rolling restart, and return when its next process is ready."""
        url = self.stage_urls[pid]
        _signal(pid, signal.SIGTERM)
        await wait_until(
            lambda: pid not in self.stage_urls,
            timeout=_START_TIMEOUT,
            description=f"another process than {pid}",
        )
        await _ready(url)

    async def arm(self, service: str, *failpoints: str) -> None:
        """Restart as many processes of the service, each with one of the failpoints for its life.

        Failpoints beyond their number are for the processes that start next. Orders that no process
        has taken are cancelled.
        """
        while take(self._orders, service):
            pass
        for failpoint in failpoints:
            order(self._orders, service, failpoint)
        await asyncio.gather(*map(self.restart, self.pids(service)[: len(failpoints)]))

    def pids(self, *services: str) -> list[int]:
        """The processes of these services or servers."""
        return [row.pid for row in self._stack.fleet.rows if row.service in services]

    @property
    def ingest_urls(self) -> list[str]:
        """Where requests can be sent."""
        return [row.url for row in self._stack.fleet.rows if row.service == "ingest"]

    @property
    def stage_urls(self) -> dict[int, str]:
        """The URL of every service process, by its pid."""
        return {row.pid: row.url for row in self._stack.fleet.rows if row.service in SERVICES}

    async def kill(self, pid: int) -> None:
        """kill -9, and return when the process is gone."""
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not is_alive(pid), description=f"the end of process {pid}")

    def freeze(self, pids: list[int]) -> list[int]:
        """SIGSTOP; the processes that still lived, for `thaw`."""
        return [pid for pid in pids if _signal(pid, signal.SIGSTOP)]

    def thaw(self, pids: list[int]) -> None:
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def postgres_processes(self) -> list[int]:
        """The postmaster and its children: freezing the postmaster alone freezes nothing."""
        return [pid for parent in self.pids("postgres") for pid in (parent, *children(parent))]

    def cut_redis_log(self, size: int) -> int:
        """Cut up to `size` bytes, at most half, off Redis' append-only file; returns how many."""
        directory = (self._stack.data_dir / "redis" / "appendonlydir").resolve()
        path = max(directory.glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        cut = min(size, path.stat().st_size // 2)
        os.truncate(path, path.stat().st_size - cut)
        return cut


@contextlib.asynccontextmanager
async def running_rig(seed: int, settings: Mapping[str, str] | None = None) -> AsyncIterator[Rig]:
    """Start everything, with `settings` on top of the usual ones, and stop it after the block."""
    with Background() as background, enterable_directory() as directory:
        tei = TeiStandIn(StandInSettings(latency_s=_TEI_SECONDS), seed=seed)
        background.run(tei.start())
        orders = directory / "orders"
        orders.mkdir()
        rig_settings = {"WEBHOOK_TEI_URL": tei.url, ORDERS: str(orders), **(settings or {})}
        environ = bare_environ(**_SETTINGS, **outside_settings(), **rig_settings)
        try:
            async with _servers(directory / "data", environ) as (stack, clock):
                await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
                proxies = {
                    part: _proxy(stack.environment[name], seed) for part, name in _PROXIED.items()
                }
                rig = Rig(stack, background, proxies, tei, orders)
                rig.clock = clock
                for part, proxy in proxies.items():
                    background.run(proxy.start())
                    stack.environment[_PROXIED[part]] = _through(
                        rig.environment[_PROXIED[part]], proxy
                    )
                replicas = dict.fromkeys(SERVICES, 2)
                async with Services(stack, replicas=replicas, command=_command) as services:
                    rig.url = services.url
                    yield rig
                for proxy in proxies.values():
                    background.run(proxy.stop())
        finally:
            background.run(tei.stop())


@contextlib.asynccontextmanager
async def _servers(
    directory: Path, environ: Mapping[str, str]
) -> AsyncIterator[tuple[Stack, Clock | None]]:
    """The stack; its Redis may have a clock of its own, its Qdrant be run by a given command."""
    library = find_library() if OWN_CLOCK in environ else None
    replaced = {"redis"} if library else set()
    if has_qdrant_command():
        replaced.add("qdrant")
        environ = {**environ, QDRANT_KEY: API_KEY}
    parts = [part for part in PARTS if part not in replaced]
    async with (
        Stack(directory, environ, parts=parts, restart_delay=_RESTART_DELAY) as stack,
        contextlib.AsyncExitStack() as others,
    ):
        clock = None
        if library is not None:
            clock = await others.enter_async_context(redis_with_clock(stack, library))
        if has_qdrant_command():
            await others.enter_async_context(given_qdrant(stack))
        try:
            yield stack, clock
        finally:
            await drop_outside_collections(stack)


async def _ready(url: str) -> None:
    await wait_until(
        http_probe(f"{url}/readyz"), timeout=_START_TIMEOUT, description=f"{url} is ready"
    )


def _command(service: str) -> tuple[str, ...]:
    return python_module("tests.torture.service", service)


def _proxy(url: str, seed: int) -> Proxy:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Proxy(parts.hostname, parts.port, seed)


def _through(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}").geturl()


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
