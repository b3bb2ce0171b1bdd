"""The client's in-memory engine, answering for a missing collection as a server does."""

from typing import Any

import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse


class MemoryQdrant(AsyncQdrantClient):
    """`AsyncQdrantClient(":memory:")` with a server's 404, where it raises ValueError itself."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    async def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        await self._check(collection_name)
        return await super().get_collection(collection_name, **kwargs)

    async def query_points(  # type: ignore[override]
        self, collection_name: str, **kwargs: Any
    ) -> models.QueryResponse:
        await self._check(collection_name)
        return await super().query_points(collection_name, **kwargs)

    async def _check(self, name: str) -> None:
        if not await self.collection_exists(name):
            raise UnexpectedResponse(
                404, "Not Found", f"Collection `{name}` doesn't exist!".encode(), httpx.Headers()
            )
