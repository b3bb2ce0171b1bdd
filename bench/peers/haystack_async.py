"""Haystack's async components: embed and write 32 chunks at a time, 8 runs in parallel."""

import asyncio

import contest
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

_BATCH = 32
_AT_ONCE = 8


def main() -> None:
    options = contest.arguments()
    documents = [
        Document(content=text, meta={"url": page["url"], "chunk_index": number})
        for page in contest.load(options.pages)
        for number, text in enumerate(page["chunks"])
    ]
    embedder = OpenAIDocumentEmbedder(
        api_key=Secret.from_token("none"),
        api_base_url=f"{options.tei}/v1",
        model="stand-in",
        batch_size=_BATCH,
        progress_bar=False,
        max_retries=8,
        raise_on_failure=True,
    )
    store = QdrantDocumentStore(
        url=options.qdrant,
        index=contest.COLLECTION,
        embedding_dim=contest.DIMENSION,
        progress_bar=False,
        return_embedding=False,
        wait_result_from_api=True,
    )
    contest.timed(lambda: asyncio.run(_run(embedder, store, documents)))


async def _run(
    embedder: OpenAIDocumentEmbedder, store: QdrantDocumentStore, documents: list[Document]
) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def index(batch: list[Document]) -> None:
        async with turns:
            embedded = (await embedder.run_async(batch))["documents"]
            await store.write_documents_async(embedded, DuplicatePolicy.OVERWRITE)

    await embedder.warm_up_async()
    await asyncio.gather(
        *(index(documents[i : i + _BATCH]) for i in range(0, len(documents), _BATCH))
    )


if __name__ == "__main__":
    main()
