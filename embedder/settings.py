"""The settings of the embedder."""

import msgspec

from shared.service.settings import (
    ChunkerSettings,
    EmbedderSettings,
    PostgresSettings,
    ProcessSettings,
    RedisSettings,
    RuntimeSettings,
    TeiSettings,
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    process: ProcessSettings
    redis: RedisSettings
    postgres: PostgresSettings
    runtime: RuntimeSettings
    tei: TeiSettings
    embedder: EmbedderSettings
    chunker: ChunkerSettings  # how long its chunks are, and with which tokenizer it counted
