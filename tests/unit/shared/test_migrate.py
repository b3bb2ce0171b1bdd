"""The migrations as files; what they do is shown by every test with a database."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.jobs.migrate import check_schema, migrate, migrations
from shared.service.errors import ConfigurationError


def test_migrations_are_numbered_without_gaps_or_doubles() -> None:
    """Only the highest number in the database is looked at: one that comes late with a lower one
    never runs.
    """
    versions = [migration.version for migration in migrations()]
    assert versions == list(range(1, len(versions) + 1))


class OldPostgres:
    """Answers what a start asks first, and fails for everything after it."""

    def __init__(self, version_num: str) -> None:
        self._version_num = version_num

    async def fetchval(self, query: str) -> str:
        assert query == "SHOW server_version_num"
        return self._version_num

    async def execute(self, query: str, *_: object) -> None:
        raise AssertionError(f"{query} was sent to a server that is too old")


@pytest.mark.parametrize("start", [migrate, check_schema])
async def test_a_postgres_that_is_too_old_is_refused_before_anything_is_changed(
    start: Callable[[Any], Awaitable[object]],
) -> None:
    with pytest.raises(
        ConfigurationError, match="Postgres 13 is too old: upgrade it to 14 or later"
    ):
        await start(OldPostgres("130014"))
