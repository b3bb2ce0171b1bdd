"""The embedded stack: real servers as child processes, unless a setting names an outside server.

    async with Stack(Path(".millstream"), os.environ) as stack:
        stack.environment["WEBHOOK_REDIS_URL"]

It leaves no process running. The services come on top (services.py).
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local.datadir import create, exclusive, persistent_secrets
from local.fleet import Fleet, Notify
from local.guard import guarded
from local.outside import check_outside
from local.program import Program
from local.servers import PARTS, QDRANT_KEY, TEI_KEY, URL_VARIABLES, server_program

API_SECRET = "WEBHOOK_API_SECRET"  # noqa: S105 - a name
WEBHOOK_SECRET = "WEBHOOK_SECRET"  # noqa: S105 - a name

# With the secrets, because `millstream doctor` reads them from stack.env: it would otherwise report
# collections that the services allow.
_FOR_DOCTOR = ("WEBHOOK_TEI_HOST_KEYS", "WEBHOOK_TEI_ALLOWED", "WEBHOOK_TOKENIZER_DIRECTORY")

_URL_NAMES = frozenset(URL_VARIABLES.values())


class Stack:
    """The servers of one data directory.

    `parts` are the servers that are wanted; a part whose URL is set in `environ` is not started.
    `notify` gets a line for people about everything that is worth one. `restart_delay` is in
    seconds; None = a server that dies is not restarted.
    """

    def __init__(
        self,
        data_dir: Path,
        environ: Mapping[str, str],
        *,
        parts: Collection[str] = PARTS,
        notify: Notify = lambda _: None,
        restart_delay: float | None = 1.0,
    ) -> None:
        self.data_dir = data_dir.resolve()
        # An empty variable, as compose files produce them, means "not set".
        self.environ: Mapping[str, str] = {name: value for name, value in environ.items() if value}
        self.environment: dict[str, str] = {}
        self.notify = notify
        self._parts = [part for part in PARTS if part in parts]
        self._restart_delay = restart_delay
        self._cleanup = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the servers; `environment` then holds their URLs and the secrets.

        Returns when all are ready. Raises ConfigurationError (directory in use, dead outside
        server, no binary) or StartError; in both cases nothing is left running.
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
        await self._cleanup.aclose()

    async def _start(self) -> None:
        create(self.data_dir)
        self._cleanup.enter_context(exclusive(self.data_dir))
        self.fleet = Fleet(self.data_dir, self.notify, self._restart_delay)
        await self.fleet.stop_leftovers()
        self._cleanup.enter_context(guarded(self.fleet.pid_files.directory, self.notify))
        outside = [part for part in self._parts if URL_VARIABLES[part] in self.environ]
        embedded = [part for part in self._parts if part not in outside]
        await self._check(outside)
        credentials = self._credentials("qdrant" in embedded)
        for part in embedded:  # left in reverse: the last one is stopped first
            self._cleanup.push_async_callback(self.fleet.stop, part)
        urls = await self._start_embedded(embedded, credentials)
        set_urls = {name: url for name, url in self.environ.items() if name in _URL_NAMES}
        self.environment = urls | set_urls | credentials

    async def _start_embedded(
        self, parts: list[str], credentials: Mapping[str, str]
    ) -> dict[str, str]:
        """The URLs by their settings."""
        urls: dict[str, str] = {}

        async def build() -> list[Program]:
            programs = [await self._program(part, credentials) for part in parts]
            urls.update({URL_VARIABLES[program.service]: program.url for program in programs})
            return programs

        await self.fleet.start_on_free_ports(build)
        return urls

    async def _check(self, outside: list[str]) -> None:
        checks = (check_outside(part, self.environ) for part in outside)
        answers = await asyncio.gather(*checks, return_exceptions=True)
        for part, answer in zip(outside, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            self.notify(f"{part} is {answer}, as {URL_VARIABLES[part]} says")

    def _credentials(self, has_qdrant: bool) -> dict[str, str]:
        """The secrets by name: those of the environment, else random ones of this directory."""
        names = [API_SECRET, WEBHOOK_SECRET, *([QDRANT_KEY] if has_qdrant else [])]
        kept = persistent_secrets(self.data_dir / "secrets.json", names)
        given_names = (*names, QDRANT_KEY, TEI_KEY, *_FOR_DOCTOR)
        return kept | {name: self.environ[name] for name in given_names if name in self.environ}

    async def _program(self, part: str, credentials: Mapping[str, str]) -> Program:
        environ = {**self.environ, **credentials}
        program = await server_program(part, self.data_dir, self.fleet.ports.take(part), environ)
        link = self.data_dir / part
        if link.is_symlink():
            self.notify(
                f"the data of {part} are in {link.readlink()}: "
                f"its user cannot enter {self.data_dir}"
            )
        return program
