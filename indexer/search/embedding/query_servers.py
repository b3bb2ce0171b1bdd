"""Compares the servers that embed queries with those that embed documents, before searches are
served.
"""

import asyncio
from collections.abc import Awaitable

import aiohttp
import structlog

from shared.service.errors import DependencyError
from shared.service.settings import TeiSettings
from shared.tei.allowed import own_servers
from shared.tei.client import TeiInfo
from shared.tei.servers import check_query_model, first_success, tei_clients

log = structlog.get_logger()

_ANSWER_S = 5.0  # then the process starts without


async def check_query_servers(session: aiohttp.ClientSession, tei: TeiSettings) -> None:
    """Raise ConfigurationError if a server of WEBHOOK_SEARCH_TEI_URL has another model than
    WEBHOOK_TEI_URL.

    A server that does not answer within 5 s is not an error: before its first query, its model is
    compared with that of the collection.
    """
    if tei.search_tei_url is None:
        return
    of_queries = tei_clients(session, tei, own_servers(tei, tei.of_queries))
    calls = [client.info for client in tei_clients(session, tei, own_servers(tei, tei.tei_url))]
    of_documents, *found = await asyncio.gather(
        _answer(first_success(calls)), *(_answer(client.info()) for client in of_queries)
    )
    if of_documents is None:
        return
    for client, info in zip(of_queries, found, strict=True):
        if info is not None:
            check_query_model(client.name, info, of_documents)


async def _answer(info: Awaitable[TeiInfo]) -> TeiInfo | None:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await info
    except (DependencyError, TimeoutError) as error:
        reason = str(error) or f"no answer within {_ANSWER_S:g} s"
        log.warning("Models of TEI not compared at the start", error=reason)
        return None
