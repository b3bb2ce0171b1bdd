"""The routes about collections: which there are and with what settings, and making one before its first document."""

import asyncpg
import msgspec
from aiohttp import web

from ingest.documents.decoding import decode
from ingest.http.deadline import DEADLINE, LONG
from ingest.http.new_targets import NewTargets
from ingest.http.queries import required_collection
from shared.jobs.targets import Target, Targets, TargetSettings
from shared.service.clients import PostgresPool
from shared.service.http import ProblemError, json_response


class NewCollection(TargetSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str


class Collection(TargetSettings, frozen=True, kw_only=True):
    """A collection with the settings that it has of its own."""

    name: str
    is_default: bool  # of documents and searches that name none
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

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/collections", self.get_collections)
        app.router.add_post("/api/collections", self.post_collection)

    async def get_collections(self, _request: web.Request) -> web.Response:
        """All collections by name; the default one only after its first document."""
        targets = await self._targets.all_live()
        return json_response(CollectionList(collections=[self._shown(target) for target in targets]))

    async def post_collection(self, request: web.Request) -> web.Response:
        """Make a collection with settings of its own."""
        wanted = decode(_decoder, await request.read())
        request[DEADLINE].start(LONG)
        name = required_collection(wanted.name)
        try:
            target = await self._new_targets.create(name, wanted, live=True)
        except asyncpg.UniqueViolationError as error:
            detail = f"there is a collection {name!r} already: change its settings with a reindex"
            raise ProblemError(409, "Conflict", detail) from error
        return json_response(self._shown(target), 201)

    def _shown(self, target: Target) -> Collection:
        own = {name: getattr(target, name) for name in TargetSettings.__struct_fields__}
        return Collection(
            name=target.collection, is_default=target.collection == self._default, target=target.target,
            model=target.model, dimension=target.dimension, **own,
        )  # fmt: skip


_decoder = msgspec.json.Decoder(NewCollection)
