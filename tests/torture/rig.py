"""The pipeline under torture: embedded servers, two replicas of every stage, proxies before Redis and Qdrant."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from cli.serve import apply_migrations
from local.ports import PortBook
from local.services import SERVICES, Services
from local.stack import Stack
from tests.support.local_stack import bare_environ, children, enterable_directory, is_alive
from tests.support.tei_stand_in import TeiStandIn
from tests.support.waiting import wait_until
from tests.torture.background import Background
from tests.torture.proxy import Proxy

_SETTINGS = {"WEBHOOK_LEASE": "3s", "WEBHOOK_LEASE_RENEWAL": "500ms", "WEBHOOK_DRAIN_TIMEOUT": "5s"}
_PROXIED = {"redis": "WEBHOOK_REDIS_URL", "qdrant": "WEBHOOK_QDRANT_URL"}


class Rig:
    """A running pipeline and the means to hurt it. Everything that dies is started again after 1 s."""

    def __init__(self, stack: Stack, background: Background, proxies: Mapping[str, Proxy]) -> None:
        self.environment = dict(stack.environment)  # the servers' own URLs
        self.background = background
        self.proxies = proxies
        self.url = ""
        self._stack = stack

    def pids(self, *services: str) -> list[int]:
        """The processes of these services or servers."""
        return [row.pid for row in self._stack.fleet.rows if row.service in services]

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
async def running_rig(seed: int) -> AsyncIterator[Rig]:
    """Start everything, and stop it when the block ends."""
    with Background() as background, enterable_directory() as directory:
        tei = TeiStandIn(seed=seed)
        background.run(tei.start())
        environ = bare_environ(WEBHOOK_TEI_URL=tei.url, **_SETTINGS)
        try:
            async with Stack(directory / "data", environ) as stack:
                await apply_migrations(stack.environment["WEBHOOK_DATABASE_URL"])
                proxies = {part: _proxy(stack.environment[name], seed) for part, name in _PROXIED.items()}
                rig = Rig(stack, background, proxies)
                for part, proxy in proxies.items():
                    background.run(proxy.start())
                    stack.environment[_PROXIED[part]] = _through(rig.environment[_PROXIED[part]], proxy)
                # Not the usual one, which another pipeline may be about to take.
                port = PortBook(directory / "ports.json").take("ingest")
                async with Services(stack, replicas=dict.fromkeys(SERVICES, 2), ingest_port=port) as services:
                    rig.url = services.url
                    yield rig
                for proxy in proxies.values():
                    background.run(proxy.stop())
        finally:
            background.run(tei.stop())


def _proxy(url: str, seed: int) -> Proxy:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Proxy(parts.hostname, parts.port, seed)


def _through(url: str, proxy: Proxy) -> str:
    return urlsplit(url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
