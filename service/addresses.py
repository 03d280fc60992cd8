"""Which addresses and names belong to the public internet. Pure; a server that fetches URLs for others must know.

Not `ipaddress.is_global`: what that says has changed within Python 3.11, where 6to4, NAT64, site-local
and mapped addresses still were "global" for years, though each of them may lead into a private network.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
IsPublic = Callable[[Address], bool]

# The IANA IPv4 special-purpose registry, without its globally reachable anycast nets, and one that is not in it.
_NOT_PUBLIC_4 = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # "this network": Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT); also Alibaba's metadata, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform service, which every virtual machine there reaches
        "169.254.0.0/16",  # link-local: most clouds' metadata, 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; also Oracle's metadata, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All that IANA has ever given out for use between hosts. Outside lie loopback, unique-local (fd00:ec2::254),
# link-local and site-local, multicast, mapped and compatible IPv4, and NAT64 (64:ff9b::/96, 64:ff9b:1::/48).
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments: Teredo, which holds an IPv4 address, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)
# Names that by RFC 6761, 6762, 7686, 8375, 9476 or ICANN's word mean nothing, or something local.
_LOCAL_NAMES = frozenset({"alt", "arpa", "internal", "invalid", "local", "localdomain", "localhost", "onion"})


def is_public(address: Address) -> bool:
    """Whether an address leads to the internet and nowhere else.

    An IPv6 address that holds an IPv4 one is not public, whatever the latter is: who translates
    between them, and how, is the network's affair.
    """
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _NOT_PUBLIC_4)
    return address in _UNICAST_6 and not any(address in net for net in _NOT_PUBLIC_6)


def public_except(networks: Iterable[str]) -> IsPublic:
    """`is_public`, without networks of one's own: those with public addresses that only neighbours may reach.

    Raises ValueError for what is no network.
    """
    own: list[Network] = [ip_network(network) for network in networks]

    def allowed(address: Address) -> bool:
        return is_public(address) and not any(address in network for network in own)

    return allowed


def is_public_name(name: str) -> bool:
    """Whether a name, in lower case and without a final dot, can belong to the public DNS: no need to ask if not."""
    *rest, top = name.split(".")
    return bool(rest) and top not in _LOCAL_NAMES
