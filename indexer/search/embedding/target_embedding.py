"""Embeds queries with the model of the target that is searched: on TEI servers of its own, or
WEBHOOK_TEI_URL's.
"""

from collections.abc import Callable, Sequence

from indexer.search.window import Embedding, EmbedText
from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import TeiSettings
from shared.tei.allowed import TeiServer, allowed_servers, own_servers


class TargetEmbedder:
    """The embed function of searches: a target's name and a text to a vector."""

    def __init__(
        self,
        target_of: Callable[[str], Target],
        make: Callable[[Sequence[TeiServer]], EmbedText],
        tei: TeiSettings,
    ) -> None:
        """`target_of` knows the targets that are searched; `make` makes what embeds on some
        servers.
        """
        self._target_of = target_of
        self._make = make
        self._tei = tei
        self._embedders: dict[str, EmbedText] = {}  # by the servers' URLs

    async def __call__(self, target: str, text: str) -> Embedding:
        """The vector of a query. Raises what the maker's function raises, and DependencyError for
        another model's, or if the servers are not allowed.
        """
        searched = self._target_of(target)
        vector = await self._embedder(searched.tei_url)(text, searched.model)
        if searched.dimension not in {None, len(vector)}:
            raise DependencyError(
                "tei",
                f"its vectors have {len(vector)} dimensions, "
                f"those of {target} have {searched.dimension}",
            )
        return vector

    def _embedder(self, own: str | None) -> EmbedText:
        """What embeds on a collection's own servers; None means those of the settings."""
        url = own or self._tei.of_queries
        if url not in self._embedders:
            try:
                servers = allowed_servers(self._tei, own) if own else own_servers(self._tei, url)
            except ConfigurationError as error:  # a person must act
                raise DependencyError("tei", str(error)) from error
            self._embedders[url] = self._make(servers)
        return self._embedders[url]
