"""What search asks of Postgres: which target serves a collection, which version of a document is live, what changed."""

import datetime as dt
from collections.abc import Mapping, Sequence

from shared.clients import PostgresPool
from shared.jobs.registry import Registry
from shared.jobs.targets import Targets


class RegistryVisibility:
    """Visibility as the registry has it. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: PostgresPool) -> None:
        self._registry = Registry(pool)
        self._targets = Targets(pool)

    async def target_of(self, collection: str) -> str | None:
        target = await self._targets.live(collection)
        return target.target if target is not None else None

    async def live_versions(self, target: str, document_ids: Sequence[str]) -> Mapping[str, int | None]:
        return await self._registry.live_versions(target, document_ids)

    async def live_targets(self) -> Sequence[str]:
        return [target.target for target in await self._targets.all_live()]

    async def changes(self, target: str, since: dt.datetime) -> tuple[dt.datetime, Mapping[str, int | None]]:
        return await self._registry.changed_since(target, since)
