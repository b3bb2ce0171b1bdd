"""Numbered SQL migrations under an advisory lock. Services only check the version of the schema.

A migration is `sql/NNNN_name.sql`; each is applied once, in order, in its own transaction.
"""

from importlib import resources

import asyncpg
import msgspec

from shared.service.errors import ConfigurationError

# Any number that no other program uses as a lock in this database: "mill" in ASCII.
_LOCK = 0x6D696C6C

OLDEST_POSTGRES = 14  # date_bin

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS webhook;
CREATE TABLE IF NOT EXISTS webhook.schema_migrations (
  version    integer PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
"""

_DEPLOYMENT = """
SELECT to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM webhook.schema_migrations ORDER BY version LIMIT 1
"""


class Migration(msgspec.Struct, frozen=True):
    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this release, in order."""
    files = sorted(
        f.name for f in resources.files("shared.jobs.sql").iterdir() if f.name.endswith(".sql")
    )
    folder = resources.files("shared.jobs.sql")
    return [Migration(int(name[:4]), name[5:-4], (folder / name).read_text()) for name in files]


async def migrate(connection: asyncpg.Connection) -> list[Migration]:
    """Apply the missing migrations and return them. Safe to call from many processes at once.

    Raises ConfigurationError for a server that is too old.
    """
    await _check_release(connection)
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(_BOOTSTRAP)
        current = await _current_version(connection)
        missing = [m for m in migrations() if m.version > current]
        for migration in missing:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO webhook.schema_migrations (version, name) VALUES ($1, $2)",
                    migration.version,
                    migration.name,
                )
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def check_schema(pool: asyncpg.Pool) -> None:
    """Raise ConfigurationError for an unsupported server or another schema than this release's."""
    await _check_release(pool)
    wanted = migrations()[-1].version
    try:
        found = await _current_version(pool)
    except asyncpg.UndefinedTableError:
        found = 0
    if found < wanted:
        raise ConfigurationError(
            f"the database has schema {found}, but this release needs {wanted}: "
            "run `millstream migrate`"
        )
    if found > wanted:
        raise ConfigurationError(
            f"the database has schema {found}, but this release knows only {wanted}: "
            "upgrade millstream"
        )


async def deployment_of(pool: asyncpg.Pool) -> str:
    """The id of the deployment: the time of the first migration of its database, in microseconds.

    It is in every backup, so that a restored database is the same deployment, and needs no schema
    of its own. The database must have the schema.
    """
    return str(await pool.fetchval(_DEPLOYMENT))


async def _check_release(connection: asyncpg.Connection | asyncpg.Pool) -> None:
    major = int(await connection.fetchval("SHOW server_version_num")) // 10_000
    if major < OLDEST_POSTGRES:
        raise ConfigurationError(
            f"Postgres {major} is too old: upgrade it to {OLDEST_POSTGRES} or later, "
            "or point WEBHOOK_DATABASE_URL to another server"
        )


async def _current_version(connection: asyncpg.Connection | asyncpg.Pool) -> int:
    return int(
        await connection.fetchval("SELECT coalesce(max(version), 0) FROM webhook.schema_migrations")
    )
