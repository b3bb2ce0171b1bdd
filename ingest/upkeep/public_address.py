"""Which addresses may be called on somebody's word, and a connector that reaches no others.

A name says nothing: it may resolve to anything, and to something else a moment later. So the address is judged when the
socket to it is made, whether it came from DNS or stood in the URL.
"""

import ipaddress
import socket
from collections.abc import Iterator

import aiohttp
from aiohttp import AddrInfoType

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: how a network without IPv4 reaches it
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is assigned of the public IPv6 addresses

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(OSError):
    """The way leads to an address that must not be called."""

    def __init__(self) -> None:  # one text for all, so that aiohttp raises it as it is when every address is forbidden
        super().__init__("its address is not public (WEBHOOK_CALLBACK_ALLOW_PRIVATE=true allows it)")


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public Internet, and so are all IPv4 addresses that it stands for.

    Not so are private, loopback, link-local, shared, documentation, multicast and reserved ones.
    """
    return all(map(_is_public, _meanings(ipaddress.ip_address(text))))


def may_be_public(host: str) -> bool:
    """Whether the host of a URL is a name, which only connecting can judge, or a public address."""
    try:
        return is_public(host)
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


def public_connector(*, allow_private: bool) -> aiohttp.TCPConnector:
    """A connector to public addresses only, or with `allow_private` to any. The others raise ForbiddenAddressError."""
    # Without its cache each request resolves anew, as whoever moves a receiver expects.
    return aiohttp.TCPConnector(
        use_dns_cache=False, force_close=True, socket_factory=None if allow_private else _public_socket
    )


def _public_socket(info: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise ForbiddenAddressError
    return socket.socket(family, kind, protocol)


def _meanings(address: Address) -> Iterator[Address]:
    """The address that is reached in the end, and what it passes through."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64:
        yield ipaddress.IPv4Address(address.packed[-4:])
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        yield from address.teredo or ()


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
