"""Ids that are computed: the same input gives the same id on every machine.

A document is its collection and its canonical URL; a point is one chunk of one version of a
document.
"""

import uuid

NAMESPACE = uuid.UUID("cd8d7fd7-c9a0-4d4c-bcd2-6a05d64f6664")  # never change it


def document_id(collection: str, canonical_url: str) -> str:
    """UUIDv5 of a document.

    A URL has no line break, so that the two parts cannot run into each other.
    """
    return str(uuid.uuid5(NAMESPACE, f"{collection}\n{canonical_url}"))


def point_id(document_id: str, version: int, chunk_index: int) -> str:
    """UUIDv5 of one chunk (`chunk_index` from 0) of one version of a document."""
    return str(uuid.uuid5(NAMESPACE, f"{document_id}/{version}/{chunk_index}"))
