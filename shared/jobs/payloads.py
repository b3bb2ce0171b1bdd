"""The texts of documents by version: written once by ingest, loaded by the chunker."""

from collections.abc import Sequence

import asyncpg
import msgspec

from shared.pipeline.messages import StoredDocument

_LOAD = "SELECT version, body FROM webhook.payloads WHERE version = ANY ($1::bigint[])"

_decoder = msgspec.json.Decoder(StoredDocument)


def encode_payload(document: StoredDocument) -> bytes:
    return msgspec.json.encode(document)


async def load_payloads(pool: asyncpg.Pool, versions: Sequence[int]) -> dict[int, StoredDocument]:
    """The documents of these versions that are still stored.

    Raises DependencyError when Postgres is unavailable.
    """
    rows = await pool.fetch(_LOAD, versions)
    return {row["version"]: _decoder.decode(row["body"]) for row in rows}
