"""Creating targets.

Their embedding servers are asked for their model first, so that a wrong address is refused.
"""

import asyncio

import aiohttp

from shared.jobs.targets import Target, Targets, TargetSettings, tokenizer_path
from shared.service.clients import PostgresPool
from shared.service.errors import ConfigurationError, DependencyError, MillstreamError
from shared.service.settings import ChunkerSettings, TeiSettings
from shared.tei.allowed import TeiServer, allowed_servers
from shared.tei.client import TeiClient, TeiInfo
from shared.tei.servers import tei_clients

_TIMEOUT_S = 10.0  # below the request's own deadline


class UnusableTargetError(MillstreamError):
    """The settings of a target name an embedding server or a tokenizer that cannot be used."""


class NewTargets:
    """Creates targets. Raises DependencyError when Postgres is unavailable."""

    def __init__(
        self,
        pool: PostgresPool,
        session: aiohttp.ClientSession,
        tei: TeiSettings,
        chunker: ChunkerSettings,
    ) -> None:
        self._targets = Targets(pool)
        self._session = session
        self._tei = tei
        self._chunker = chunker

    async def create(self, collection: str, settings: TargetSettings, *, live: bool) -> Target:
        """Create a target with its own settings.

        Raises UnusableTargetError for its embedding server or tokenizer, and
        asyncpg.UniqueViolationError if a concurrent request created a target of this name, or a
        live target of the collection.
        """
        self.check(settings)
        model, dimension = None, None
        if settings.tei_url is not None:
            info, dimension = await self.ask(settings.tei_url)
            model = info.model_id
            _check_window(info, settings)
        return await self._targets.create(
            collection, settings, live=live, model=model, dimension=dimension
        )

    def check(self, settings: TargetSettings) -> None:
        """Raise UnusableTargetError for a server or a tokenizer that is not allowed."""
        if settings.tei_url is not None:
            self._servers(settings.tei_url)
        if settings.tokenizer is not None:
            try:
                tokenizer_path(settings.tokenizer, self._chunker)
            except ConfigurationError as error:
                raise UnusableTargetError(f"invalid value for `tokenizer`: {error}") from error

    async def ask(self, tei_url: str) -> tuple[TeiInfo, int]:
        """The servers' description of themselves, and the dimension of their model.

        Raises UnusableTargetError.
        """
        clients = tei_clients(self._session, self._tei, self._servers(tei_url))
        served = await asyncio.gather(*map(_ask, clients))
        if len({(info.model_id, info.model_sha, dimension) for info, dimension in served}) > 1:
            raise UnusableTargetError(
                "the servers of `tei_url` serve different models: expected the same one"
            )
        return served[0]

    def _servers(self, tei_url: str) -> list[TeiServer]:
        try:
            return allowed_servers(self._tei, tei_url)
        except ConfigurationError as error:
            raise UnusableTargetError(f"invalid value for `tei_url`: {error}") from error


async def _ask(client: TeiClient) -> tuple[TeiInfo, int]:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await client.info(), await client.probe()
    except DependencyError as error:
        raise UnusableTargetError(f"{client.name} cannot be used: {error.reason}") from error
    except TimeoutError as error:
        raise UnusableTargetError(
            f"{client.name} cannot be used: no answer within {_TIMEOUT_S:g} s"
        ) from error


def _check_window(info: TeiInfo, settings: TargetSettings) -> None:
    wanted = settings.max_chunk_tokens
    if wanted is not None and wanted > info.max_input_length:
        raise UnusableTargetError(
            f"`max_chunk_tokens` is {wanted}, but {info.model_id} takes at most "
            f"{info.max_input_length} tokens a text"
        )
