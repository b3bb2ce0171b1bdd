"""The servers that a torture run is given instead of embedded ones: docs/reliability.md."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator

import asyncpg

from indexer.qdrant.client import make_client
from local.servers import QDRANT_KEY, URL_VARIABLES, http_server
from local.stack import Stack
from tests.support.outside import outside
from tests.support.qdrant_process import API_KEY, qdrant_argv, qdrant_settings

_PARTS = ("redis", "postgres", "qdrant")


def outside_servers() -> dict[str, str]:
    """The URLs of servers that run elsewhere, by part."""
    variables = {part: f"MILLSTREAM_TORTURE_{part.upper()}_URL" for part in _PARTS}
    found = {part: os.environ[name] for part, name in variables.items() if os.environ.get(name)}
    given = outside("qdrant")
    return {"qdrant": given.url, **found} if given.is_shared else found


def outside_settings() -> dict[str, str]:
    """The settings of a pipeline that uses them."""
    servers = outside_servers()
    settings = {URL_VARIABLES[part]: url for part, url in servers.items()}
    if "qdrant" in servers:  # other pipelines may have collections there
        settings["WEBHOOK_QDRANT_COLLECTION"] = f"torture_{secrets.token_hex(4)}"
        settings[QDRANT_KEY] = outside("qdrant").key
    return settings


def has_qdrant_command() -> bool:
    """Whether each pipeline runs a Qdrant of its own by a given command."""
    return bool(outside("qdrant").command) and "qdrant" not in outside_servers()


@contextlib.asynccontextmanager
async def given_qdrant(stack: Stack) -> AsyncIterator[None]:
    """Run that command as a server of the stack, which must have been made without a Qdrant."""
    port = stack.fleet.ports.take("qdrant")
    argv = tuple(qdrant_argv(stack.data_dir / "qdrant", port, API_KEY))
    program = http_server("qdrant", argv, stack.data_dir, port, stack.environ)
    await stack.fleet.start([program])
    stack.environment[URL_VARIABLES["qdrant"]] = program.url
    try:
        yield
    finally:
        await stack.fleet.stop("qdrant")


async def drop_outside_collections(stack: Stack) -> None:
    """Drop the collections of this pipeline on a Qdrant that runs elsewhere."""
    url = outside_servers().get("qdrant")
    if url is None:
        return
    connection = await asyncpg.connect(stack.environment["WEBHOOK_DATABASE_URL"])
    try:
        rows = await connection.fetch("SELECT target FROM webhook.targets")
    finally:
        await connection.close()
    client = make_client(qdrant_settings(url, stack.environ.get(QDRANT_KEY, "")))
    try:
        for row in rows:
            await client.delete_collection(row["target"])
    finally:
        await client.close()
