import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address

import not_public
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.addresses import Address, is_public, is_public_name, public_except


@pytest.mark.parametrize("address", not_public.ADDRESSES)
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", not_public.PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


# https://www.iana.org/assignments/iana-ipv4-special-registry as of 2025, less AS112 and AMT: hosts like any.
SPECIAL_4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
]  # fmt: skip
# Likewise IPv6; and all that IANA has not given out yet.
SPECIAL_6 = ["::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]


@pytest.mark.parametrize("net", [ipaddress.ip_network(net) for net in SPECIAL_4 + SPECIAL_6], ids=str)
def test_the_edges_of_every_special_network(net: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    assert not is_public(net[0])
    assert not is_public(net[-1])


@given(st.one_of(st.ip_addresses(), st.ip_addresses(v=6, network="2000::/3")))
@example(ip_address("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"))
@example(ip_address("2001:200::"))
def test_against_the_registry_said_slowly(address: Address) -> None:
    nets = map(ipaddress.ip_network, SPECIAL_4 if address.version == 4 else SPECIAL_6)
    assert is_public(address) == (not any(address in net for net in nets))


@given(st.ip_addresses())
def test_what_the_standard_library_refuses_is_refused(address: Address) -> None:
    """A second opinion; it is laxer, and differs from one Python to the next."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_reached_through_ipv6(inner: IPv4Address) -> None:
    prefixes = (0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x64FF9B0001 << 80)
    embedded = [prefix + int(inner) for prefix in prefixes]
    embedded += [0x2002 << 112 | int(inner) << 80, 0x20010000 << 96 | int(inner) ^ 0xFFFFFFFF]
    assert not any(is_public(IPv6Address(number)) for number in embedded)


def test_networks_of_ones_own() -> None:
    allowed = public_except(["93.184.0.0/16", "2606:4700::/32"])
    assert not allowed(ip_address("93.184.215.14"))
    assert not allowed(ip_address("2606:4700:4700::1111"))
    assert not allowed(ip_address("10.0.0.1"))
    assert allowed(ip_address("8.8.8.8"))
    with pytest.raises(ValueError, match="host bits set"):
        public_except(["93.184.215.14/16"])


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("public.example", True),
        ("a.b.c.example.com", True),
        ("internal.example.com", True),
        ("com", False),
        ("localhost", False),
        ("a.localhost", False),
        ("metadata.google.internal", False),
        ("printer.local", False),
        ("1.0.0.127.in-addr.arpa", False),
    ],
)
def test_names(name: str, public: bool) -> None:
    assert is_public_name(name) is public
