"""`millstream serve` and `millstream migrate`: one service, and the database schema."""

import enum
import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit
from cli.output import Json, console, emit, fail

if TYPE_CHECKING:
    from shared.jobs.migrate import Migration


class Service(enum.StrEnum):
    """What `serve` can run.

    Not made of the table of stages, which takes a third of a second to import at every command.
    """

    INGEST = "ingest"
    CHUNKER = "chunker"
    EMBEDDER = "embedder"
    INDEXER = "indexer"
    SEARCH = "search"

    @property
    def module(self) -> str:
        """The module for `python -m`."""
        return "indexer.search_api" if self is Service.SEARCH else self


def serve(service: Annotated[Service, typer.Argument(help="The service to run.")]) -> None:
    """Run one service in the foreground.

    It needs Redis, Postgres, TEI and Qdrant. The settings come from the environment:
    docs/settings.md lists them, `millstream doctor` checks them. The database schema must be up to
    date (`millstream migrate`). SIGTERM lets the service finish its work first. Start any number of
    each service; they share the work.
    """
    import runpy

    runpy.run_module(service.module, run_name="__main__", alter_sys=True)


def migrate_database(as_json: Json = False) -> None:
    """Bring the database schema at WEBHOOK_DATABASE_URL up to date.

    Safe to run at any time, also twice at once: only what is missing is applied.
    """
    import asyncio

    import asyncpg
    import msgspec

    from shared.service.settings import PostgresSettings, load

    only_postgres = msgspec.defstruct("Settings", [("postgres", PostgresSettings)], frozen=True)
    url = load(only_postgres, os.environ).postgres.database_url  # type: ignore[attr-defined]
    try:
        applied = asyncio.run(apply_migrations(url))
    except (OSError, asyncpg.PostgresError) as error:
        fail(
            f"Cannot migrate the database: {error}\n"
            "Check that Postgres is running and that WEBHOOK_DATABASE_URL is its address.",
            Exit.UNREACHABLE,
        )
    names = [f"{migration.version:04}_{migration.name}" for migration in applied]
    emit(
        {"applied": names},
        as_json=as_json,
        show=lambda: console().print(f"applied: {', '.join(names) or 'nothing, it is up to date'}"),
    )


async def apply_migrations(url: str) -> "list[Migration]":
    """Apply the missing migrations to a database. Raises OSError and asyncpg.PostgresError."""
    import asyncpg

    from shared.jobs.migrate import migrate
    from shared.service.clients import postgres_dsn

    connection = await asyncpg.connect(postgres_dsn(url), timeout=10)
    try:
        return await migrate(connection)
    finally:
        await connection.close()
