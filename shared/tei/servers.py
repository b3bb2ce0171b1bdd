"""Clients for the TEI servers of settings and collections, whether any of them is available, and
whether those of queries serve the model of the documents.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import aiohttp

from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import TeiSettings
from shared.tei.allowed import TeiServer
from shared.tei.client import TeiClient, TeiInfo

T = TypeVar("T")


def tei_clients(
    session: aiohttp.ClientSession,
    settings: TeiSettings,
    servers: Iterable[TeiServer],
    embed_timeout_s: float | None = None,
) -> list[TeiClient]:
    """A client for each server (see allowed.py), in this order."""
    return [
        TeiClient(
            session,
            server.url,
            api_keys=server.keys,
            timeout_s=settings.tei_timeout,
            embed_timeout_s=embed_timeout_s,
        )
        for server in servers
    ]


def check_any(clients: Sequence[TeiClient]) -> Callable[[], Awaitable[None]]:
    """A health check that holds while at least one server says that it can work."""

    async def check() -> None:
        await first_success([client.health for client in clients])

    return check


def check_query_model(name: str, of_queries: TeiInfo, of_documents: TeiInfo) -> None:
    """Raise ConfigurationError if the server `name` embeds queries with another model than that of
    the documents.

    A revision is compared where both servers know theirs.
    """
    is_same = of_queries.model_id == of_documents.model_id and (
        of_queries.model_sha == of_documents.model_sha
        or None in {of_queries.model_sha, of_documents.model_sha}
    )
    if not is_same:
        wanted = _model(of_documents)
        raise ConfigurationError(
            f"{name} is to embed queries and serves {_model(of_queries)}, but WEBHOOK_TEI_URL "
            f"serves {wanted}: point WEBHOOK_SEARCH_TEI_URL to servers of {wanted}"
        )


async def first_success(calls: Sequence[Callable[[], Awaitable[T]]]) -> T:
    """Make all calls at once; return the first success.

    Raises the DependencyError of the first call if all of them fail.
    """
    tasks = [asyncio.ensure_future(call()) for call in calls]
    try:
        for task in asyncio.as_completed(tasks):
            with contextlib.suppress(DependencyError):
                return await task
    finally:
        for started in tasks:
            started.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        task.result()
    raise DependencyError("tei", "no server is known")


def _model(info: TeiInfo) -> str:
    return f"{info.model_id} (revision {info.model_sha})" if info.model_sha else info.model_id
