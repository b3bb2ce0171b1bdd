"""The settings of ingest."""

import msgspec

from shared.service.settings import (
    ChunkerSettings,
    CollectionSettings,
    DispatchSettings,
    IngestSettings,
    PostgresSettings,
    ProcessSettings,
    QdrantSettings,
    RedisSettings,
    RuntimeSettings,
    TeiSettings,
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    process: ProcessSettings
    redis: RedisSettings
    postgres: PostgresSettings
    runtime: RuntimeSettings
    dispatch: DispatchSettings
    ingest: IngestSettings
    collection: CollectionSettings
    chunker: ChunkerSettings  # to check the tokenizers of new targets
    tei: TeiSettings  # for /health, and to ask the servers of new targets
    qdrant: QdrantSettings  # for /health only
