"""The streams as ingest shows them, for a doctor that cannot reach Redis."""

from http import HTTPStatus
from typing import Any, Protocol

import aiohttp
import msgspec

from ingest.inspection.streams import PendingPage, StreamStates
from shared.pipeline.stages import StageName
from shared.service.errors import DependencyError


class Streams(Protocol):
    """The states of all stages, and the pending entries of one. Methods raise DependencyError."""

    async def streams(self) -> StreamStates: ...
    async def pending(self, stage: StageName, *, idle_over: float = 0.0) -> PendingPage: ...


class IngestStreams:
    """Streams over the API of ingest."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {secret}"}

    async def streams(self) -> StreamStates:
        """All stages."""
        return msgspec.convert(await self._get("/api/streams"), StreamStates)

    async def pending(self, stage: StageName, *, idle_over: float = 0.0) -> PendingPage:
        """The pending entries of a stage that were idle for so many seconds or longer."""
        path = f"/api/streams/{stage}/pending?idle_over={idle_over:g}s"
        return msgspec.convert(await self._get(path), PendingPage)

    async def _get(self, path: str) -> Any:
        try:
            async with self._session.get(self._url + path, headers=self._headers) as answer:
                if answer.status != HTTPStatus.OK:
                    raise DependencyError("ingest", f"HTTP {answer.status} for {path}")
                return await answer.json()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DependencyError("ingest", f"{type(error).__name__}: {error}") from error
