"""Errors that mean that Postgres is unavailable, so that the statement is tried again."""

import asyncpg
import pytest

from shared.service.clients import is_postgres_unavailable
from shared.service.errors import DependencyError

AWAY = [
    ConnectionRefusedError(),
    TimeoutError(),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.DeadlockDetectedError("deadlock detected"),
    asyncpg.InterfaceError("cannot perform operation: connection is closed"),
    asyncpg.InterfaceError(
        "cannot call Connection.execute(): connection has been released back to the pool"
    ),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    DependencyError("postgres", "no answer"),
]
OTHERS = [
    asyncpg.UniqueViolationError("duplicate key"),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (12) is in progress"),
    DependencyError("redis", "no answer"),
    ValueError(),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: f"{type(error).__name__} {error}")
def test_the_server_or_the_way_to_it_failed(error: Exception) -> None:
    assert is_postgres_unavailable(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: f"{type(error).__name__} {error}")
def test_the_statement_itself_failed(error: Exception) -> None:
    assert not is_postgres_unavailable(error)
