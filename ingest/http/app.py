"""The ingest application: credentials, and the statuses of the errors that handlers raise."""

from typing import Any

from aiohttp import web

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.http.deadline import add_deadlines
from ingest.http.sessions import Sessions, is_own
from ingest.inspection.operator import NotPendingError, PendingConflictError
from ingest.jobs.accept import IdempotencyConflictError
from ingest.jobs.new_targets import UnusableTargetError
from shared.pipeline.messages import NewerSchemaError
from shared.service.auth import Authenticator, Verdict
from shared.service.errors import DependencyError
from shared.service.http import ProblemError
from shared.service.parameters import unprocessable

WEBHOOK_PREFIX = (
    "/api/webhook/"  # takes a signature instead, which its handler checks against the body
)


def make_app(
    authenticator: Authenticator, sessions: Sessions, max_body_bytes: int
) -> web.Application:
    """An application without routes. Everything under /api needs the API secret or a session.

    The webhook takes a signature as well, of which only the presence is checked here.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        if request.path.startswith(WEBHOOK_PREFIX):
            signature = request.headers.get("X-Firecrawl-Signature")
            require(authenticator.check_webhook_headers(authorization, signature))
        elif request.path.startswith("/api/"):
            if authorization is None and sessions.has(request):
                if not is_own(request):
                    raise ProblemError(
                        403,
                        "Forbidden",
                        "the cookie of a session is not enough for a change: "
                        "send the request from the page, or with the API secret",
                    )
            else:
                require(authenticator.check_bearer(authorization))
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(
        middlewares=[authenticate, translate_errors], client_max_size=max_body_bytes
    )
    add_deadlines(app)
    return app


def require(verdict: Verdict) -> None:
    """Raise ProblemError (401) unless the credentials are right."""
    if verdict is not Verdict.ALLOWED:
        raise ProblemError(401, "Unauthorized", verdict, {"WWW-Authenticate": "Bearer"})


@web.middleware
async def translate_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Give the errors that handlers raise their statuses."""
    try:
        response: web.StreamResponse = await handler(request)
    except MalformedBodyError as error:
        raise ProblemError(400, "Bad Request", str(error)) from error
    except (UnprocessableBodyError, IdempotencyConflictError, UnusableTargetError) as error:
        raise unprocessable(str(error)) from error
    except NotPendingError as error:
        raise ProblemError(404, "Not Found", str(error)) from error
    except (PendingConflictError, NewerSchemaError) as error:
        raise ProblemError(409, "Conflict", str(error)) from error
    except DependencyError as error:
        raise ProblemError(503, "Service Unavailable", str(error), {"Retry-After": "5"}) from error
    return response
