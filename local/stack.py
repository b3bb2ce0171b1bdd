"""The embedded stack: real servers as child processes, except those that a setting says run elsewhere.

    async with Stack(Path(".millstream"), os.environ) as stack:
        stack.environment["WEBHOOK_REDIS_URL"]

Nothing of it is left running afterwards. The services come on top (services.py).
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local.datadir import create, exclusive, persistent_secrets
from local.fleet import Fleet, Notify
from local.outside import check_outside
from local.ports import PortBook
from local.program import Program
from local.servers import PARTS, QDRANT_KEY, TEI_KEY, URL_VARIABLES, server_program

API_SECRET = "WEBHOOK_API_SECRET"  # noqa: S105 - a name
WEBHOOK_SECRET = "WEBHOOK_SECRET"  # noqa: S105 - a name


class Stack:
    """The servers of one data directory.

    `parts` are the servers that are wanted: the setting of a part's URL says which are used instead of an embedded one.
    `notify` gets a line for people about everything that is worth one. `restart_delay` is in seconds; None = a server
    that dies stays dead.
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
        self._parts = [part for part in PARTS if part in parts]
        self._notify = notify
        self._restart_delay = restart_delay
        self._cleanup = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the servers and return when all are ready; `environment` then holds their URLs and the secrets.

        Raises ConfigurationError (directory in use, dead outside server, nothing to run) or StartError; in both cases
        nothing is left running.
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
        await self._cleanup.aclose()

    async def _start(self) -> None:
        create(self.data_dir)
        self._cleanup.enter_context(exclusive(self.data_dir))
        self.fleet = Fleet(self.data_dir, self._notify, self._restart_delay)
        self.ports = PortBook(self.data_dir / "run" / "ports.json")
        await self.fleet.stop_leftovers()
        outside = [part for part in self._parts if URL_VARIABLES[part] in self.environ]
        embedded = [part for part in self._parts if part not in outside]
        await self._check(outside)
        credentials = self._credentials("qdrant" in embedded)
        for part in embedded:  # left in reverse: the last one is stopped first
            self._cleanup.push_async_callback(self.fleet.stop, part)
        programs = [await self._program(part, credentials) for part in embedded]
        await self.fleet.start(programs)
        urls = {URL_VARIABLES[program.service]: program.url for program in programs}
        urls |= {name: self.environ[name] for name in URL_VARIABLES.values() if name in self.environ}
        self.environment = urls | credentials

    async def _check(self, outside: list[str]) -> None:
        answers = await asyncio.gather(*(check_outside(part, self.environ) for part in outside), return_exceptions=True)
        for part, answer in zip(outside, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            self._notify(f"{part} is {answer}, as {URL_VARIABLES[part]} says")

    def _credentials(self, has_qdrant: bool) -> dict[str, str]:
        """The secrets by name: those of the environment, else random ones that this directory keeps."""
        names = [API_SECRET, WEBHOOK_SECRET, *([QDRANT_KEY] if has_qdrant else [])]
        kept = persistent_secrets(self.data_dir / "secrets.json", names)
        given = {name: self.environ[name] for name in (*names, QDRANT_KEY, TEI_KEY) if name in self.environ}
        return kept | given

    async def _program(self, part: str, credentials: Mapping[str, str]) -> Program:
        program = await server_program(part, self.data_dir, self.ports.take(part), {**self.environ, **credentials})
        link = self.data_dir / part
        if link.is_symlink():
            self._notify(f"the data of {part} are in {link.readlink()}: its user cannot enter {self.data_dir}")
        return program
