"""Clients that ask Redis Sentinel where the primary is, each time they open a connection.

`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DATABASE`: the hosts are the sentinels;
user, password and database are those of Redis. `?sentinel_password=` is that of the sentinels.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.service.errors import ConfigurationError

_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://((?P<user>[^:@/]*)(:(?P<password>[^@/]*))?@)?(?P<hosts>[^@/?]+)"
    r"/(?P<service>[^/?]+)(/(?P<database>[0-9]+))?(\?(?P<query>.*))?"
)
_DEFAULT_PORT = 26379
_SENTINEL_TIMEOUT = 1.0  # seconds; a sentinel that does not answer must not delay the next one


def is_sentinel_url(url: str) -> bool:
    return url.startswith(_SCHEMES)


def sentinel_pool(url: str, options: Mapping[str, Any]) -> SentinelConnectionPool:
    """Return a pool of connections to the service's primary, each with `options`.

    It opens none yet. Raises ConfigurationError for a URL that is not complete.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(
            "WEBHOOK_REDIS_URL is not a Sentinel URL: expected "
            "redis+sentinel://:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/0"
        )
    sentinel = Sentinel([])  # type: ignore[no-untyped-call]
    sentinel.sentinels = [
        _SentinelClient(
            host=host, port=port, password=_sentinel_password(match["query"]), **options
        )
        for host, port in map(_address, match["hosts"].split(","))
    ]
    return _Pool(  # type: ignore[no-untyped-call]
        match["service"],
        sentinel,
        ssl=bool(match["tls"]),
        username=unquote(match["user"] or "") or None,
        password=unquote(match["password"] or "") or None,
        db=int(match["database"] or 0),
        **options,
    )


class _SentinelClient(Redis):
    """A client of one sentinel; its timeout is the error that makes redis-py ask the next one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(_SENTINEL_TIMEOUT):
                reply = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
                return await reply
        except TimeoutError as error:
            raise RedisTimeoutError(f"no answer within {_SENTINEL_TIMEOUT:g} s") from error


class _Pool(SentinelConnectionPool):
    """The connections to the primary; they end together with those to the sentinels."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.strip().rpartition(":")
    return (name, int(port)) if name and port.isdecimal() else (host.strip(), _DEFAULT_PORT)


def _sentinel_password(query: str | None) -> str | None:
    return parse_qs(query or "").get("sentinel_password", [None])[0]
