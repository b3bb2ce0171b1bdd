"""The ingest application: routes, credentials, and what errors mean over HTTP."""

from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.http.deadline import DEADLINE, add_deadlines
from ingest.http.sessions import Sessions, is_own
from ingest.inspection.operator import NotPendingError, PendingConflictError
from ingest.jobs.accept import IdempotencyConflictError
from shared.pipeline.messages import NewerSchemaError
from shared.pipeline.tracing import OFF, Tracing
from shared.service.auth import Authenticator, Verdict
from shared.service.errors import DependencyError
from shared.service.http import REQUEST_ID, ProblemError
from shared.service.settings import Secret

_PASSED_ON = ("Content-Type", "Retry-After", "Server-Timing")  # of the search API's answers

WEBHOOK_PREFIX = "/api/webhook/"  # signed or Bearer: its handler checks, since a signature needs the body


def make_app(authenticator: Authenticator, sessions: Sessions, max_body_bytes: int) -> web.Application:
    """An application without routes; everything under /api but the webhook asks for the API secret or a session."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/api/") and not request.path.startswith(WEBHOOK_PREFIX):
            authorization = request.headers.get("Authorization")
            if authorization is None and sessions.has(request):
                if not is_own(request):
                    raise ProblemError(403, "Forbidden", "a session's cookie alone changes nothing")
            elif (verdict := authenticator.check_bearer(authorization)) is not Verdict.ALLOWED:
                raise ProblemError(401, "Unauthorized", verdict, {"WWW-Authenticate": "Bearer"})
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[authenticate, translate_errors], client_max_size=max_body_bytes)
    add_deadlines(app)
    return app


@web.middleware
async def translate_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """The statuses of the errors that handlers raise."""
    try:
        response: web.StreamResponse = await handler(request)
    except MalformedBodyError as error:
        raise ProblemError(400, "Bad Request", str(error)) from error
    except (UnprocessableBodyError, IdempotencyConflictError) as error:
        raise ProblemError(422, "Unprocessable Content", str(error)) from error
    except NotPendingError as error:
        raise ProblemError(404, "Not Found", str(error)) from error
    except (PendingConflictError, NewerSchemaError) as error:
        raise ProblemError(409, "Conflict", str(error)) from error
    except asyncpg.DataError as error:  # a number out of range, or a text with a NUL
        raise ProblemError(422, "Unprocessable Content", "a parameter has a value that cannot be looked for") from error
    except DependencyError as error:
        raise ProblemError(503, "Service Unavailable", str(error), {"Retry-After": "5"}) from error
    return response


class SearchForwarder:
    """Passes POST /api/search on to the search API and its answer back."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: Secret, tracing: Tracing = OFF) -> None:
        self._session = session
        self._tracing = tracing
        self._authorization = f"Bearer {secret}"  # who has come this far is known here, also by a session
        self._url = url.rstrip("/") + "/api/search"

    async def post_search(self, request: web.Request) -> web.Response:
        request[DEADLINE].lift()  # the session has a time limit of its own
        headers = {"Authorization": self._authorization, "X-Request-ID": request[REQUEST_ID]}
        if traceparent := self._tracing.traceparent():
            headers["traceparent"] = traceparent
        if "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        try:
            async with self._session.post(self._url, data=await request.read(), headers=headers) as answer:
                passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
                return web.Response(body=await answer.read(), status=answer.status, headers=passed)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DependencyError("search", f"the search API does not answer: {error}") from error
