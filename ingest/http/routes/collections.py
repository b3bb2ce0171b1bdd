"""The routes of collections: list them with their settings, and create one before its first
document.
"""

import asyncpg
import msgspec
from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.jobs.new_targets import NewTargets
from shared.jobs.targets import Target, Targets, TargetSettings
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response
from shared.service.parameters import CollectionName
from shared.service.routes import route


class NewCollection(TargetSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: CollectionName


class Collection(TargetSettings, frozen=True, kw_only=True):
    """A collection with its own settings."""

    name: str
    is_default: bool  # used by documents and searches that name none
    target: str  # the collection in Qdrant that serves it
    model: str | None  # both null until the first embedding, unless the server was asked
    dimension: int | None


class CollectionList(msgspec.Struct, frozen=True, kw_only=True):
    collections: list[Collection]


class CollectionsApi:
    """Handlers of /api/collections."""

    def __init__(self, pool: PostgresPool, new_targets: NewTargets, *, default: str) -> None:
        self._targets = Targets(pool)
        self._new_targets = new_targets
        self._default = default

    @route("GET /api/collections", "List collections", {200: CollectionList})
    async def get_collections(self, _request: web.Request) -> web.Response:
        """All collections by name; the default one only after its first document."""
        targets = await self._targets.all_live()
        return json_response(
            CollectionList(collections=[self._shown(target) for target in targets])
        )

    @route(
        "POST /api/collections",
        "Create a collection with its own settings",
        {201: Collection},
        errors=(409,),
    )
    async def post_collection(self, request: web.Request, body: NewCollection) -> web.Response:
        """Create a collection with its own settings."""
        request[DEADLINE].start(LONG)
        try:
            target = await self._new_targets.create(body.name, body, live=True)
        except asyncpg.UniqueViolationError as error:
            detail = (
                f"the collection {body.name!r} already exists: "
                "change its settings with POST /api/reindex"
            )
            raise ProblemError(409, "Conflict", detail) from error
        return json_response(self._shown(target), 201)

    def _shown(self, target: Target) -> Collection:
        own = {name: getattr(target, name) for name in TargetSettings.__struct_fields__}
        return Collection(
            name=target.collection,
            is_default=target.collection == self._default,
            target=target.target,
            model=target.model,
            dimension=target.dimension,
            **own,
        )
