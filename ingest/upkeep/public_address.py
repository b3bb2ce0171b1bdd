"""The addresses that callbacks may reach, and a connector that reaches no others.

A host name proves nothing: it can resolve to any address, and to another one a moment later. So the
address is checked when the socket is created, whether it is from DNS or from the URL.
"""

import ipaddress
import socket
from collections.abc import Iterator

import aiohttp
from aiohttp import AddrInfoType

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses in IPv6 networks
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all assigned public IPv6 addresses

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(OSError):
    """The address must not be called."""

    # One text for all addresses: aiohttp raises the error unchanged if all are forbidden.
    def __init__(self) -> None:
        super().__init__(
            "the address is not public (WEBHOOK_CALLBACK_ALLOW_PRIVATE=true allows it)"
        )


def is_public(text: str) -> bool:
    """Whether an IP address, and every IPv4 address that it contains, is public.

    Private, loopback, link-local, shared, documentation, multicast and reserved addresses are not.
    """
    return all(map(_is_public, _meanings(ipaddress.ip_address(text))))


def may_be_public(host: str) -> bool:
    """Whether the host of a URL is a public address, or a name, which is checked when it is
    connected.
    """
    try:
        return is_public(host)
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


def public_connector(*, allow_private: bool) -> aiohttp.TCPConnector:
    """A connector to public addresses, or with `allow_private` to all.

    Others raise ForbiddenAddressError.
    """
    # No DNS cache: a receiver can move to another address.
    return aiohttp.TCPConnector(
        use_dns_cache=False,
        force_close=True,
        socket_factory=None if allow_private else _public_socket,
    )


def _public_socket(info: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise ForbiddenAddressError
    return socket.socket(family, kind, protocol)


def _meanings(address: Address) -> Iterator[Address]:
    """The address that is finally reached, and the addresses of the tunnel to it."""
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
