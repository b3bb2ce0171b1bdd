"""The aiohttp application over an open directory: routes, errors, the API key. Nothing here opens
or closes files.
"""

from importlib.metadata import version

from aiohttp import web
from aiohttp.typedefs import Middleware

from local.qdrant.collection_routes import CollectionRoutes
from local.qdrant.collections import Directory
from local.qdrant.flush import GroupCommit
from local.qdrant.point_routes import PointRoutes
from local.qdrant.replies import MAX_BODY_BYTES, authenticator, compression, errors

# The release of the real server whose API this is; the client compares major and minor with its
# own.
API_VERSION = "1.20.0"


def make_app(directory: Directory, api_key: str | None = None) -> web.Application:
    """Serve `directory`; with `api_key`, everything but `/` and the health routes asks for it."""
    commits = GroupCommit(directory.flush)
    middlewares: list[Middleware] = [compression, errors]
    if api_key:
        middlewares.append(authenticator(api_key))
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=middlewares)
    app.add_routes([web.get("/", _version)])
    app.add_routes([web.get(path, _healthy) for path in ("/healthz", "/livez", "/readyz")])
    app.add_routes(CollectionRoutes(directory, commits).routes())
    app.add_routes(PointRoutes(directory, commits).routes())
    return app


async def _version(_request: web.Request) -> web.Response:
    engine = version("qdrant-edge-py")
    title = "qdrant-edge: a subset of the Qdrant REST API"
    return web.json_response(
        {"title": title, "version": f"{API_VERSION}-edge{engine}", "commit": None}
    )


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.path[1:]} check passed")
