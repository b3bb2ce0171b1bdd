"""`millstream serve NAME` and `millstream migrate`: one service, and the schema, against servers of one's own."""

import asyncio
import enum
import os
import runpy
from typing import Annotated

import asyncpg
import msgspec
import typer

from cli.output import Exit, Json, console, emit, fail
from shared.jobs.migrate import Migration, migrate
from shared.service.clients import postgres_dsn
from shared.service.settings import PostgresSettings, load


class Service(enum.StrEnum):
    INGEST = "ingest"
    CHUNKER = "chunker"
    EMBEDDER = "embedder"
    INDEXER = "indexer"
    SEARCH = "search"

    @property
    def module(self) -> str:
        """What `python -m` would run."""
        return "indexer.search_api" if self is Service.SEARCH else self


class _MigrateSettings(msgspec.Struct, frozen=True, kw_only=True):
    postgres: PostgresSettings


def serve(service: Annotated[Service, typer.Argument(help="Which service to run.")]) -> None:
    """Run one service in the foreground, with its settings from the environment."""
    runpy.run_module(service.module, run_name="__main__", alter_sys=True)


def migrate_database(as_json: Json = False) -> None:
    """Bring the database's schema up to date."""
    settings = load(_MigrateSettings, os.environ)
    try:
        applied = asyncio.run(apply_migrations(settings.postgres.database_url))
    except (OSError, asyncpg.PostgresError) as error:
        fail(f"The database cannot be migrated: {error}", Exit.UNREACHABLE)
    names = [f"{migration.version:04}_{migration.name}" for migration in applied]
    emit({"applied": names}, as_json=as_json, show=lambda: console.print(f"applied: {', '.join(names) or 'nothing'}"))


async def apply_migrations(url: str) -> list[Migration]:
    """Apply what is missing in the database at `url`. Raises OSError and asyncpg.PostgresError."""
    connection = await asyncpg.connect(postgres_dsn(url), timeout=10)
    try:
        return await migrate(connection)
    finally:
        await connection.close()
