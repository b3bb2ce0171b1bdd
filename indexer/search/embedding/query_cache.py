"""Embeddings of the queries that were asked last: paging through an answer, or asking again, costs
TEI nothing.
"""

from collections import OrderedDict

from indexer.search.window import Embedding, EmbedText

QUERIES = 1000  # 1.5 MB of 384 dimensions


class QueryCache:
    """An embed function that remembers; the query least recently asked is forgotten first. Errors
    are not kept.
    """

    def __init__(self, embed_query: EmbedText, size: int = QUERIES) -> None:
        self._embed_query = embed_query
        self._size = size
        self._embeddings: OrderedDict[tuple[str, str | None], Embedding] = OrderedDict()

    async def __call__(self, text: str, model: str | None) -> Embedding:
        """The embedding of `text` by a model. Raises what the embed function raises."""
        key = text, model
        if key not in self._embeddings:
            self._embeddings[key] = await self._embed_query(text, model)
            while len(self._embeddings) > self._size:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]
