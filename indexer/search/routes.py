"""POST /api/search over HTTP: request in, answer or problem+json out. What a search is, is in
search.py.
"""

from collections.abc import Callable

from aiohttp import web

from indexer.search.contract import InvalidSearchError, decode_request
from indexer.search.service import SearchEngine
from indexer.search.timing import SearchTiming
from shared.service.errors import DependencyError, RejectedError
from shared.service.http import ProblemError, json_response, read_all

Authenticator = Callable[[web.Request], bool]
Observer = Callable[[str, float], None]  # given a part of a search, or `total`, and its seconds


def add_search_routes(
    app: web.Application, engine: SearchEngine, is_authentic: Authenticator, observe: Observer
) -> None:
    """Add the route to an application with `problem_middleware`; checks credentials before it reads
    a body.
    """

    async def post_search(request: web.Request) -> web.Response:
        if not is_authentic(request):
            detail = "send `Authorization: Bearer <WEBHOOK_API_SECRET>`"
            raise ProblemError(401, "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        try:
            wanted = decode_request(await read_all(request))
            timing = SearchTiming()
            answer = await engine.search(wanted, timing)
        except (InvalidSearchError, RejectedError) as error:
            raise ProblemError(422, "Unprocessable Content", str(error)) from error
        except DependencyError as error:
            raise ProblemError(
                503, "Service Unavailable", str(error), {"Retry-After": "5"}
            ) from error
        for part, seconds in timing.seconds.items():
            observe(part, seconds)
        observe("total", timing.elapsed_s)
        return json_response(answer, headers={"Server-Timing": timing.header()})

    app.router.add_post("/api/search", post_search)
