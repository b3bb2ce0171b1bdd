"""Embeds queries with the model of the target that is searched: on TEI servers of its own, or
WEBHOOK_TEI_URL's.
"""

from collections.abc import Callable

import msgspec

from indexer.search.window import Embedding, EmbedText
from shared.jobs.targets import Target
from shared.service.errors import DependencyError
from shared.service.settings import TeiSettings


class TargetEmbedder:
    """The embed function of searches: a target's name and a text to a vector."""

    def __init__(
        self,
        target_of: Callable[[str], Target],
        make: Callable[[TeiSettings], EmbedText],
        tei: TeiSettings,
    ) -> None:
        """`target_of` knows the targets that are searched; `make` makes what embeds on the servers
        of a setting.
        """
        self._target_of = target_of
        self._make = make
        self._tei = tei
        self._embedders: dict[str, EmbedText] = {}  # by the servers' URLs

    async def __call__(self, target: str, text: str) -> Embedding:
        """The vector of a query. Raises what the maker's function raises, and DependencyError for
        another model's.
        """
        searched = self._target_of(target)
        url = searched.tei_url or self._tei.tei_url
        if url not in self._embedders:
            self._embedders[url] = self._make(msgspec.structs.replace(self._tei, tei_url=url))
        vector = await self._embedders[url](text, searched.model)
        if searched.dimension not in {None, len(vector)}:
            raise DependencyError(
                "tei",
                f"its vectors have {len(vector)} dimensions, "
                f"those of {target} have {searched.dimension}",
            )
        return vector
