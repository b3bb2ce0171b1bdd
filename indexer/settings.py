"""The settings of the indexer and of the search API."""

import msgspec

from shared.service.settings import (
    CollectionSettings,
    IndexerSettings,
    PostgresSettings,
    ProcessSettings,
    QdrantSettings,
    RedisSettings,
    RuntimeSettings,
    SearchSettings,
    TeiSettings,
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    process: ProcessSettings
    redis: RedisSettings
    postgres: PostgresSettings
    runtime: RuntimeSettings
    qdrant: QdrantSettings
    collection: CollectionSettings
    search: SearchSettings
    tei: TeiSettings
    indexer: IndexerSettings
