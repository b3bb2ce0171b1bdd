"""The route of search, which ingest forwards to the search API (`indexer/search_api.py`)."""

import aiohttp
from aiohttp import web

from ingest.http.deadline import DEADLINE
from shared.pipeline.tracing import OFF, Tracing
from shared.service.errors import DependencyError
from shared.service.http import REQUEST_ID, read_all
from shared.service.routes import route
from shared.service.search_contract import SearchRequest, SearchResponse
from shared.service.settings import Secret

_FORWARDED = ("Content-Type", "Retry-After", "Server-Timing")  # headers of the search API's answer


class SearchApi:
    """Handler of /api/search."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, secret: Secret, tracing: Tracing = OFF
    ) -> None:
        self._session = session
        self._tracing = tracing
        self._authorization = f"Bearer {secret}"  # the client may have shown a session instead
        self._url = url.rstrip("/") + "/api/search"

    @route("POST /api/search", "Search", {200: SearchResponse}, body=SearchRequest)
    async def post_search(self, request: web.Request) -> web.Response:
        """Forward the request, and its answer whatever it is."""
        request[DEADLINE].lift()  # the session has its own time limit
        headers = {"Authorization": self._authorization, "X-Request-ID": request[REQUEST_ID]}
        if traceparent := self._tracing.traceparent():
            headers["traceparent"] = traceparent
        if "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        try:
            async with self._session.post(
                self._url, data=await read_all(request), headers=headers
            ) as answer:
                forwarded = {
                    name: answer.headers[name] for name in _FORWARDED if name in answer.headers
                }
                return web.Response(
                    body=await answer.read(), status=answer.status, headers=forwarded
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DependencyError(
                "search", f"the search API at {self._url} does not answer: {error}"
            ) from error
