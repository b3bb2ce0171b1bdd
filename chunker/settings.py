"""The settings of the chunker."""

import msgspec

from shared.service.settings import (
    ChunkerSettings,
    PostgresSettings,
    ProcessSettings,
    RedisSettings,
    RuntimeSettings,
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    process: ProcessSettings
    redis: RedisSettings
    postgres: PostgresSettings
    runtime: RuntimeSettings
    chunker: ChunkerSettings
