"""Names that are computed, never stored first: the same input gives the same id on every machine.

A document is its collection and its canonical URL; a point is one chunk of one version of a document.
"""

import hashlib
import uuid

NAMESPACE = uuid.UUID("cd8d7fd7-c9a0-4d4c-bcd2-6a05d64f6664")  # never change: every stored id hangs on it

_PREFIX = NAMESPACE.bytes


def document_id(collection: str, canonical_url: str) -> str:
    """UUIDv5 of a document. A URL has no line break, so that the two parts cannot run into each other."""
    return _uuid5(f"{collection}\n{canonical_url}")


def point_id(document_id: str, version: int, chunk_index: int) -> str:
    """UUIDv5 of one chunk (`chunk_index` from 0) of one version of a document."""
    return _uuid5(f"{document_id}/{version}/{chunk_index}")


def _uuid5(name: str) -> str:
    """What `str(uuid.uuid5(NAMESPACE, name))` gives, RFC 9562 section 5.5, without its UUID object."""
    digest = hashlib.sha1(_PREFIX + name.encode(), usedforsecurity=False).digest()
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF000 << 64) & ~(0xC000 << 48) | 5 << 76 | 0x8000 << 48
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
