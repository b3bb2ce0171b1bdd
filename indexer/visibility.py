"""What search asks of Postgres: which target serves a collection, which version of a document is live, what changed."""

import datetime as dt
from collections.abc import Mapping, Sequence

from shared.clients import PostgresPool
from shared.jobs.registry import Registry
from shared.jobs.targets import Target, Targets


class RegistryVisibility:
    """Visibility as the registry has it. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: PostgresPool) -> None:
        self._registry = Registry(pool)
        self._targets = Targets(pool)
        self._seen: dict[str, Target] = {}  # by name, as they were seen last

    async def target_of(self, collection: str) -> str | None:
        target = await self._targets.live(collection)
        if target is None:
            return None
        self._seen[target.target] = target
        return target.target

    def seen(self, target: str) -> Target:
        """A target that `target_of` has named before."""
        return self._seen[target]

    async def live_versions(self, target: str, document_ids: Sequence[str]) -> Mapping[str, int | None]:
        return await self._registry.live_versions(target, document_ids)

    async def targets_in_use(self) -> Sequence[str]:
        return [target.target for target in await self._targets.in_use()]

    async def changes(self, target: str, since: dt.datetime) -> tuple[dt.datetime, Mapping[str, int | None]]:
        return await self._registry.changed_since(target, since)
