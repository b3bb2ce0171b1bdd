"""Which addresses a callback may go to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.upkeep.public_address import is_public, may_be_public

PUBLIC = [
    "8.8.8.8",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",  # mapped
    "64:ff9b::808:808",  # NAT64
    "2002:808:808::1",  # 6to4
]
NOT_PUBLIC = [
    "0.0.0.0",  # this host
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "fd00:ec2::254",  # private
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "::",  # loopback
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",  # link-local: what clouds answer credentials at
    "100.64.0.1",  # behind a provider's NAT
    "192.0.2.1",
    "198.18.0.1",
    "2001:db8::1",  # documentation, benchmarks
    "224.0.0.1",
    "ff02::1",
    "ff0e::1",  # multicast
    "240.0.0.1",
    "255.255.255.255",
    "4000::1",
    "fec0::1",  # reserved
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",  # mapped
    "::127.0.0.1",  # compatible, long given up
    "64:ff9b::a00:1",
    "64:ff9b:1::1",  # NAT64
    "2002:7f00:1::1",
    "2002:a00:1::1",  # 6to4
    "2001:0:7f00:1::",
    "2001:0:808:808:0:0:f5ff:fffe",  # Teredo: its server, its client (10.0.0.1, inverted)
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_of_a_private_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_address_is_checked(
    address: ipaddress.IPv4Address,
) -> None:
    embedded = f"{int(address):08x}"
    clothes = [f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{embedded[:4]}:{embedded[4:]}::1"]
    assert {is_public(each) for each in clothes} == {is_public(str(address))}


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "10.example", "8.8.8.8"])
def test_a_name_may_be_public_until_it_is_called(host: str) -> None:
    assert may_be_public(host)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "::1"])
def test_a_host_with_a_private_address_is_refused_without_connecting(host: str) -> None:
    assert not may_be_public(host)
