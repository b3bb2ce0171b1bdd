"""The TEI servers that `WEBHOOK_TEI_URL` names: a client for each, and whether any of them is
available.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp

from shared.service.errors import DependencyError
from shared.service.settings import TeiSettings
from shared.tei.client import TeiClient

T = TypeVar("T")


def tei_clients(
    session: aiohttp.ClientSession, settings: TeiSettings, embed_timeout_s: float | None = None
) -> list[TeiClient]:
    """A client for each server, in the order of the setting."""
    return [
        TeiClient(
            session,
            url,
            api_key=settings.tei_api_key,
            timeout_s=settings.tei_timeout,
            embed_timeout_s=embed_timeout_s,
        )
        for url in settings.tei_urls
    ]


def check_any(clients: Sequence[TeiClient]) -> Callable[[], Awaitable[None]]:
    """A health check that holds while at least one server says that it can work."""

    async def check() -> None:
        await first_success([client.health for client in clients])

    return check


async def first_success(calls: Sequence[Callable[[], Awaitable[T]]]) -> T:
    """Make all calls at once; return the first success, or raise the last DependencyError."""
    tasks = [asyncio.ensure_future(call()) for call in calls]
    failure = DependencyError("tei", "no server is known")
    try:
        for task in asyncio.as_completed(tasks):
            try:
                return await task
            except DependencyError as error:
                failure = error
    finally:
        for started in tasks:
            started.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise failure
