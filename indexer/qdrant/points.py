"""An embedded document as Qdrant points. Pure; store.py writes them."""

import datetime as dt
import hashlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import PointStruct, SparseVector

from indexer.keyword import KeywordEncoder
from indexer.qdrant.collection import DENSE, SPARSE
from shared.pipeline.ids import point_id
from shared.pipeline.messages import Chunk, DocumentRef, EmbeddedDocument
from shared.service.errors import RejectedError

# It is stored with every chunk: 128 of them must stay far below the 32 MB that Qdrant takes in one
# request.
MAX_METADATA_BYTES = 64 * 1024

Vectors = NDArray[np.float32]


def points_of(
    ref: DocumentRef,
    embedded: EmbeddedDocument,
    *,
    domain: str,
    collection: str,
    indexed_at: dt.datetime,
    encoder: KeywordEncoder,
) -> list[PointStruct]:
    """One point per chunk, in order; ids depend on document, version and chunk alone, so a repeat
    overwrites.

    CPU-bound, 0.1 ms per chunk: call it in a thread. Raises RejectedError for vectors that do not
    fit the chunks or are not finite, and for metadata over 64 KiB.
    """
    page = embedded.document.page
    if len(msgspec.json.encode(page.metadata)) > MAX_METADATA_BYTES:
        raise RejectedError("metadata_too_large", f"metadata is over {MAX_METADATA_BYTES} bytes")
    vectors = _vectors(embedded)
    shared = {
        "document_id": ref.document_id,
        "version": ref.version,
        "url": ref.url,
        "domain": domain,
        **msgspec.structs.asdict(page),
        "crawl_id": ref.crawl_id,
        "collection": collection,
        "indexed_at": indexed_at.isoformat(),
    }
    return [
        PointStruct(
            id=point_id(ref.document_id, ref.version, index),
            vector=_named_vectors(vectors[index], encoder.encode_document(chunk.embedded_text)),
            payload={**shared, **_chunk_payload(index, chunk)},
        )
        for index, chunk in enumerate(embedded.document.chunks)
    ]


def _vectors(embedded: EmbeddedDocument) -> Vectors:
    shape = (len(embedded.document.chunks), embedded.dimension)
    packed = np.frombuffer(embedded.vectors, dtype="<f4")
    if packed.size != shape[0] * shape[1]:
        raise RejectedError(
            "bad_vectors", f"{packed.size} vector values for {shape[0]} chunks of {shape[1]}"
        )
    # Qdrant's engine stores NaN and infinity without a word, and every later comparison with them
    # is wrong.
    if not np.isfinite(packed).all():
        raise RejectedError("bad_vectors", "a vector has a value that is not finite")
    return packed.reshape(shape)


def _named_vectors(dense: Vectors, sparse: SparseVector) -> dict[str, Any]:
    named: dict[str, Any] = {DENSE: dense.tolist()}
    if sparse.indices:
        named[SPARSE] = sparse
    return named


def _chunk_payload(index: int, chunk: Chunk) -> dict[str, Any]:
    return {
        "chunk_index": index,
        "text": chunk.text,
        "prefix": chunk.prefix,
        "headings": chunk.headings,
        "start": chunk.start,
        "end": chunk.end,
        "tokens": chunk.tokens,
        "text_hash": hashlib.sha256(chunk.text.encode()).hexdigest(),
    }
