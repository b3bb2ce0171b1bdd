"""Routes about collections as a whole: create, show, delete, payload indexes, aliases."""

from typing import Any

import msgspec
import qdrant_edge as edge
from aiohttp import web

from local.qdrant import bodies
from local.qdrant.collections import Directory
from local.qdrant.errors import ApiError, refusals
from local.qdrant.flush import GroupCommit
from local.qdrant.points import Write
from local.qdrant.replies import endpoint, read_body
from local.qdrant.schema import check_collection, collection_info, index_operation
from local.qdrant.validation import check_collection_name, check_payload, only_field

_CREATE = msgspec.json.Decoder(bodies.CreateCollection)
_UPDATE = msgspec.json.Decoder(bodies.UpdateCollection)
_INDEX = msgspec.json.Decoder(bodies.CreateIndex)
_ALIASES = msgspec.json.Decoder(bodies.ChangeAliases)


class CollectionRoutes:
    """Handlers over one directory; all changes are durable when they are answered."""

    def __init__(self, directory: Directory, commits: GroupCommit) -> None:
        self._directory = directory
        self._commits = commits

    def routes(self) -> list[web.RouteDef]:
        one = "/collections/{collection}"
        return [
            web.get("/collections", endpoint(self.list)),
            web.get(one, endpoint(self.show)),
            web.put(one, endpoint(self.create)),
            web.patch(one, endpoint(self.update)),
            web.delete(one, endpoint(self.delete)),
            web.get(one + "/exists", endpoint(self.exists)),
            web.put(one + "/index", endpoint(self.create_index)),
            web.delete(one + "/index/{field}", endpoint(self.delete_index)),
            web.get(one + "/aliases", endpoint(self.aliases_of)),
            web.get("/aliases", endpoint(self.aliases)),
            web.post("/collections/aliases", endpoint(self.change_aliases)),
        ]

    async def list(self, _request: web.Request) -> dict[str, Any]:
        return {"collections": [{"name": name} for name in self._directory.names()]}

    async def exists(self, request: web.Request) -> dict[str, bool]:
        return {"exists": self._directory.get(request.match_info["collection"]) is not None}

    async def show(self, request: web.Request) -> dict[str, Any]:
        collection = self._directory.require(request.match_info["collection"])
        return collection_info(collection.settings, collection.read(lambda shard: shard.info()))

    async def create(self, request: web.Request) -> bool:
        body = await read_body(request, _CREATE)
        check_collection(body)
        self._directory.create(request.match_info["collection"], body)
        return True

    async def update(self, request: web.Request) -> bool:
        """Merge metadata; nothing else of a collection can be changed here."""
        body = await read_body(request, _UPDATE)
        check_payload(body.metadata)
        collection = self._directory.require(request.match_info["collection"])
        collection.settings.metadata = {**(collection.settings.metadata or {}), **body.metadata}
        collection.save_settings()
        return True

    async def delete(self, request: web.Request) -> bool:
        self._commits.run()
        return self._directory.delete(request.match_info["collection"])

    async def create_index(self, request: web.Request) -> dict[str, Any]:
        body = await read_body(request, _INDEX)
        with refusals():
            write = Write(index_operation(body))
        return await self._change_index(request, write)

    async def delete_index(self, request: web.Request) -> dict[str, Any]:
        with refusals():
            write = Write(edge.UpdateOperation.delete_field_index(request.match_info["field"]))
        return await self._change_index(request, write)

    async def _change_index(self, request: web.Request, write: Write) -> dict[str, Any]:
        operation = self._directory.apply(request.match_info["collection"], [write])
        await self._commits.durable()
        return {"operation_id": operation, "status": "completed"}

    async def aliases(self, _request: web.Request) -> dict[str, Any]:
        return _described(self._directory.aliases)

    async def aliases_of(self, request: web.Request) -> dict[str, Any]:
        name = self._directory.require(request.match_info["collection"]).name
        return _described(
            {alias: target for alias, target in self._directory.aliases.items() if target == name}
        )

    async def change_aliases(self, request: web.Request) -> bool:
        """All actions in order, or none of them."""
        body = await read_body(request, _ALIASES)
        aliases = dict(self._directory.aliases)
        for action in body.actions:
            self._change_alias(aliases, action)
        self._directory.replace_aliases(aliases)
        return True

    def _change_alias(self, aliases: dict[str, str], action: bodies.AliasAction) -> None:
        only_field(action)
        if action.delete_alias:
            aliases.pop(action.delete_alias.alias_name, None)
        elif action.create_alias:
            if action.create_alias.collection_name not in self._directory.names():
                raise ApiError.missing_collection(action.create_alias.collection_name)
            aliases[self._free(action.create_alias.alias_name)] = (
                action.create_alias.collection_name
            )
        elif action.rename_alias:
            if action.rename_alias.old_alias_name not in aliases:
                raise ApiError(
                    404, f"Not found: Alias {action.rename_alias.old_alias_name} does not exists!"
                )
            aliases[self._free(action.rename_alias.new_alias_name)] = aliases.pop(
                action.rename_alias.old_alias_name
            )

    def _free(self, alias: str) -> str:
        """A name for an alias, which no collection may have."""
        check_collection_name(alias)
        if alias in self._directory.names():
            raise ApiError.existing_collection(alias)
        return alias


def _described(aliases: dict[str, str]) -> dict[str, Any]:
    return {
        "aliases": [
            {"alias_name": alias, "collection_name": name}
            for alias, name in sorted(aliases.items())
        ]
    }
