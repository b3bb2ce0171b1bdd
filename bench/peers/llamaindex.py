"""IngestionPipeline of LlamaIndex: `arun`, batches of 32, 8 in parallel, into its Qdrant store."""

import asyncio

import contest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient


def main() -> None:
    options = contest.arguments()
    nodes = [
        TextNode(
            text=text,
            metadata={"url": page["url"], "chunk_index": number},
            excluded_embed_metadata_keys=["url", "chunk_index"],
        )
        for page in contest.load(options.pages)
        for number, text in enumerate(page["chunks"])
    ]
    embedding = TextEmbeddingsInference(
        model_name="stand-in", base_url=options.tei, embed_batch_size=32
    )
    embedding.num_workers = 8
    store = QdrantVectorStore(
        contest.COLLECTION,
        client=QdrantClient(url=options.qdrant, check_compatibility=False),
        aclient=AsyncQdrantClient(url=options.qdrant, check_compatibility=False),
    )
    pipeline = IngestionPipeline(
        transformations=[embedding], vector_store=store, disable_cache=True
    )
    contest.timed(lambda: asyncio.run(_run(pipeline, nodes)))


async def _run(pipeline: IngestionPipeline, nodes: list[TextNode]) -> None:
    await pipeline.arun(nodes=nodes)


if __name__ == "__main__":
    main()
