"""Making targets: their embedding server is asked who it is, so that a wrong address is refused at once."""

import asyncio
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ingest.http.queries import unprocessable
from shared.jobs.targets import Target, Targets, TargetSettings
from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError
from shared.service.settings import TeiSettings
from shared.tei.client import TeiClient, TeiInfo
from shared.tei.servers import tei_clients

_PATIENCE_S = 10.0  # below the request's own deadline


class NewTargets:
    """Makes targets. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: PostgresPool, session: aiohttp.ClientSession, tei: TeiSettings) -> None:
        self._targets = Targets(pool)
        self._session = session
        self._tei = tei

    async def create(self, collection: str, settings: TargetSettings, *, live: bool) -> Target:
        """Make a target with these settings of its own.

        Raises ProblemError (422) for an embedding server that cannot be used, asyncpg.UniqueViolationError if there is
        one of the same name, or a live one of the collection, by now.
        """
        model, dimension = None, None
        if settings.tei_url is not None:
            info, dimension = await self.ask(settings.tei_url)
            model = info.model_id
            _check_window(info, settings)
        return await self._targets.create(collection, settings, live=live, model=model, dimension=dimension)

    async def ask(self, tei_url: str) -> tuple[TeiInfo, int]:
        """Who the servers say they are, and their model's dimension. Raises ProblemError (422)."""
        tei = msgspec.structs.replace(self._tei, tei_url=tei_url)
        try:
            for url in tei.tei_urls:
                urlsplit(url)
        except ValueError as error:
            raise unprocessable(f"tei_url: {error}") from error
        clients = tei_clients(self._session, tei)
        served = await asyncio.gather(*map(_ask, clients))
        if len({(info.model_id, info.model_sha, dimension) for info, dimension in served}) > 1:
            raise unprocessable("the servers of tei_url serve different models")
        return served[0]


async def _ask(client: TeiClient) -> tuple[TeiInfo, int]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await client.info(), await client.probe()
    except DependencyError as error:
        raise unprocessable(f"{client.name} cannot be used: {error.reason}") from error
    except TimeoutError as error:
        raise unprocessable(f"{client.name} cannot be used: no answer within {_PATIENCE_S:g} s") from error


def _check_window(info: TeiInfo, settings: TargetSettings) -> None:
    wanted = settings.max_chunk_tokens
    if wanted is not None and wanted > info.max_input_length:
        raise unprocessable(f"{info.model_id} takes {info.max_input_length} tokens a text: chunks are to have {wanted}")
