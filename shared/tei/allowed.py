"""Which TEI servers requests may go to, and which keys each server gets. Pure.

The address of a collection's server comes from a request to the API. Without this list, such a
request could make millstream send requests, and its key, to any host.
"""

import msgspec
from yarl import URL

from shared.service.errors import ConfigurationError
from shared.service.settings import Secret, TeiSettings


class TeiServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server, with the keys to try in this order; without a key, none is sent."""

    url: str
    keys: tuple[Secret, ...] = ()


def own_servers(settings: TeiSettings, urls: str) -> list[TeiServer]:
    """The servers of `urls`, which is one of the two settings with addresses."""
    return [
        TeiServer(url=url, keys=_host_keys(settings, url) or tuple(settings.tei_api_key.values))
        for url in addresses(urls)
    ]


def allowed_servers(settings: TeiSettings, urls: str) -> list[TeiServer]:
    """The servers of `urls`, separated by commas, which are those of a collection.

    Raises ConfigurationError for a server that is neither in WEBHOOK_TEI_ALLOWED nor one of
    WEBHOOK_TEI_URL and WEBHOOK_SEARCH_TEI_URL. WEBHOOK_TEI_API_KEY is for the latter only.
    """
    own = {_origin(url) for url in addresses(f"{settings.tei_url},{settings.of_queries}")}
    return [_allowed(settings, url, own) for url in addresses(urls)]


def addresses(urls: str) -> list[str]:
    """Each address once, in the order given."""
    return list(dict.fromkeys(url.strip().rstrip("/") for url in urls.split(",")))


def _allowed(settings: TeiSettings, url: str, own: set[URL | None]) -> TeiServer:
    origin = _origin(url)
    if origin is None:
        raise ConfigurationError(
            "an embedding server has no usable address: expected http://HOST:PORT"
        )
    keys = _host_keys(settings, url)
    if origin in own:
        return TeiServer(url=url, keys=keys or tuple(settings.tei_api_key.values))
    if any(_is_at(origin, host) for host in settings.tei_allowed.split(",")):
        return TeiServer(url=url, keys=keys)
    host = f"{origin.host_subcomponent}:{origin.port}"
    raise ConfigurationError(
        f"the embedding server {host} is not allowed: add {host} to WEBHOOK_TEI_ALLOWED of every "
        "service, or move the collection to another server by a reindex"
    )


def _host_keys(settings: TeiSettings, url: str) -> tuple[Secret, ...]:
    origin = _origin(url)
    return tuple(key for host, key in settings.host_keys if origin and _is_at(origin, host))


def _is_at(origin: URL, place: str) -> bool:
    """Whether a server is at HOST or HOST:PORT; HOST stands for each of its ports."""
    try:
        host = URL(f"http://{place.strip()}")
    except ValueError:
        return False
    return host.host == origin.host and host.explicit_port in {None, origin.port}


def _origin(url: str) -> URL | None:
    """Scheme, host and port, as the client that sends the request parses them."""
    try:
        origin = URL(url).origin()
        return origin.with_port(None) if origin.is_default_port() else origin
    except ValueError:
        return None
