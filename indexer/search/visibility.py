"""What search asks of Postgres: which target serves a collection, which version of a document is
live, what changed.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from shared.jobs.registry import Registry
from shared.jobs.targets import Target, Targets
from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError

ANSWER_S = 3.0  # what a search waits for Postgres, before it answers without
AVOIDED_S = 5.0  # how long Postgres is not asked after that

T = TypeVar("T")


class RegistryVisibility:
    """Visibility as the registry has it. Raises DependencyError when Postgres is unavailable, or
    does not answer in time.

    The limits of a connection pool stack, for a connection, a statement and its cancellation: 20 s
    on a server that hangs. A question that took too long is therefore left to itself, and for some
    seconds no other one is asked.
    """

    def __init__(
        self,
        pool: PostgresPool,
        answer_s: float = ANSWER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = Registry(pool)
        self._targets = Targets(pool)
        self._answer_s = answer_s
        self._clock = clock
        self._avoided_until = 0.0
        self._unanswered: set[asyncio.Task[Any]] = set()
        self._seen: dict[str, Target] = {}  # by name, as they were seen last

    async def target_of(self, collection: str) -> str | None:
        target = await self._in_time(lambda: self._targets.live(collection))
        if target is None:
            return None
        self._seen[target.target] = target
        return target.target

    def seen(self, target: str) -> Target:
        """A target that `target_of` has named before."""
        return self._seen[target]

    async def live_versions(
        self, target: str, document_ids: Sequence[str]
    ) -> Mapping[str, int | None]:
        return await self._in_time(lambda: self._registry.live_versions(target, document_ids))

    async def targets_in_use(self) -> Sequence[str]:
        return [target.target for target in await self._in_time(self._targets.in_use)]

    async def changes(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        return await self._in_time(lambda: self._registry.changed_since(target, since))

    async def _in_time(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._clock() < self._avoided_until:
            raise DependencyError("postgres", "it did not answer a moment ago")
        task = asyncio.create_task(ask())
        self._unanswered.add(task)
        task.add_done_callback(self._note_answer)
        await asyncio.wait({task}, timeout=self._answer_s)
        if not task.done():
            self._avoided_until = self._clock() + AVOIDED_S
            raise DependencyError("postgres", f"no answer within {self._answer_s:g} s")
        return task.result()

    def _note_answer(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more
