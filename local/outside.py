"""Servers outside the stack, named by settings: checked before the stack starts anything."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import aiohttp
import asyncpg
from redis.exceptions import RedisError

from local.servers import QDRANT_KEY, TEI_KEY, URL_VARIABLES
from shared.service.clients import postgres_dsn, redis_command
from shared.service.errors import ConfigurationError
from shared.service.http import UNCOMPRESSED

_TIMEOUT = 5.0  # seconds


async def check_outside(part: str, environ: Mapping[str, str]) -> str:
    """Check the server of `part`; returns its URL without credentials, for people.

    Raises ConfigurationError that names the setting, the URL and the reason.
    """
    variable = URL_VARIABLES[part]
    shown = ",".join(without_credentials(url) for url in environ[variable].split(","))
    try:
        await _CHECKS[part](environ[variable], environ)
    except (
        OSError,
        TimeoutError,
        ValueError,
        RedisError,
        aiohttp.ClientError,
        *_POSTGRES_ERRORS,
    ) as error:
        reason = str(error) or type(error).__name__
        raise ConfigurationError(
            f"{variable} is set to {shown}, but nothing there can be used: {reason}. "
            f"Start that server, or unset {variable} to use the embedded one"
        ) from error
    return shown


def without_credentials(url: str) -> str:
    """The URL without user and password, or a placeholder if it cannot be parsed."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return "(not a URL)"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


async def _check_redis(url: str, _: Mapping[str, str]) -> None:
    client = redis_command(url)
    try:
        await client.ping()
    finally:
        await client.aclose()


async def _check_postgres(url: str, _: Mapping[str, str]) -> None:
    connection = await asyncpg.connect(postgres_dsn(url), timeout=_TIMEOUT)
    try:
        await connection.fetchval("SELECT 1", timeout=_TIMEOUT)
    finally:
        await connection.close(timeout=_TIMEOUT)


# The health routes of TEI and Qdrant need no key. These two do, so that a wrong key is reported
# now.


async def _check_tei(urls: str, environ: Mapping[str, str]) -> None:
    key = environ.get(TEI_KEY)
    for url in urls.split(","):
        await _get(
            f"{url.strip().rstrip('/')}/info", {"Authorization": f"Bearer {key}"} if key else {}
        )


async def _check_qdrant(url: str, environ: Mapping[str, str]) -> None:
    key = environ.get(QDRANT_KEY)
    await _get(f"{url.strip().rstrip('/')}/collections", {"api-key": key} if key else {})


async def _get(url: str, headers: Mapping[str, str]) -> None:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    async with (
        aiohttp.ClientSession(
            timeout=timeout, headers=UNCOMPRESSED, raise_for_status=True
        ) as session,
        session.get(url, headers=headers),
    ):
        pass


_POSTGRES_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)

_CHECKS: Mapping[str, Callable[[str, Mapping[str, str]], Awaitable[None]]] = {
    "redis": _check_redis,
    "postgres": _check_postgres,
    "tei": _check_tei,
    "qdrant": _check_qdrant,
}
