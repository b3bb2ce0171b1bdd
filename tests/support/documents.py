"""Embedded documents for tests, made from plain texts."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client.models import PointStruct

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.points import points_of
from shared.pipeline import ids
from shared.pipeline.messages import Chunk, ChunkedDocument, DocumentRef, EmbeddedDocument, Page
from tests.support.outside import own_name

COLLECTION = own_name("docs")
DIMENSION = 8
INDEXED_AT = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def ref_of(url: str, version: int = 1, *, crawl_id: str | None = "crawl-1") -> DocumentRef:
    return DocumentRef(
        job_id="job",
        position=0,
        release=1,
        document_id=ids.document_id(COLLECTION, url),
        version=version,
        url=url,
        crawl_id=crawl_id,
    )


def vector_of(text: str) -> list[float]:
    """A stand-in for a model: the same text gives the same direction, other texts other ones."""
    codes = (ord(character) * 31**at for at, character in enumerate(text))
    rng = np.random.default_rng(sum(codes) % 2**32)
    return [float(value) for value in rng.standard_normal(DIMENSION)]


def embedded(
    texts: Sequence[str],
    *,
    page: Page | None = None,
    vectors: bytes | None = None,
    prefix: str = "",
) -> EmbeddedDocument:
    chunks = tuple(
        Chunk(
            text=text,
            prefix=prefix,
            headings=("Heading",),
            start=at * 10,
            end=at * 10 + len(text),
            tokens=9,
        )
        for at, text in enumerate(texts)
    )
    packed = np.array([vector_of(text) for text in texts], dtype="<f4").tobytes()
    document = ChunkedDocument(
        page=page or Page(title="Title"), content_hash=b"", fingerprint=b"", chunks=chunks
    )
    return EmbeddedDocument(
        document=document, vectors=packed if vectors is None else vectors, dimension=DIMENSION
    )


def points(
    url: str,
    texts: Sequence[str],
    *,
    version: int = 1,
    encoder: KeywordEncoder | None = None,
    **page: Any,
) -> list[PointStruct]:
    """The points of one version of a document, a chunk for every text."""
    return points_of(
        ref_of(url, version),
        embedded(texts, page=Page(**page)),
        domain=url.split("/")[2],
        collection=COLLECTION,
        indexed_at=INDEXED_AT,
        encoder=encoder or KeywordEncoder(KeywordParameters()),
    )
