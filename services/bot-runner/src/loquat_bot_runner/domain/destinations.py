"""Where a bot may connect to: pure decisions about names, addresses and a project's policy.

Sources of the networks: IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its updates), RFC 5214, RFC 6052. An own list, since
what `ipaddress` calls global changed between Python's patch releases; a test holds it to be no wider than that of the running Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST_NAME: Final = 253
_MOST_HOSTS: Final = 100
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_REFUSED_V4: Final = [
    IPv4Network(n)
    for n in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' own, and a cloud's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own service to its machines, on an address that looks public
        "169.254.0.0/16",  # link-local, most clouds' metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, a cloud's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""Global unicast. All else is refused: loopback, link-local, ULA, multicast, v4-mapped and -compatible, NAT64's own prefixes, SRv6."""
_REFUSED_V6: Final = [
    IPv6Network(n)
    for n in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
_ISATAP: Final = {0x00005EFE, 0x02005EFE}


class Refused(Exception):
    """The bot does not get there. `reason` is for its owner to read, `outcome` a word of a closed set."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


@dataclass(frozen=True, slots=True)
class Destination:
    """A host, as a lower-case name or an address, and a port."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address, if the host is one."""
        return _literal(self.host)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a project's bot may reach. By default nothing.

    `hosts` are names (`api.example.com`), names with all below them (`*.example.com`, not the name itself), addresses, or `*` for every public host.
    """

    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (443, 80)
    connection_bytes: int = 64 << 20
    connection_seconds: float = 300.0
    hour_bytes: int = 1 << 30


def policy_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Checked and written in one way.

    Raises:
        Refused: one of them is none; the reason names it.
    """
    if len(hosts) > _MOST_HOSTS:
        raise Refused("host", f"hosts: {len(hosts)} are given; {_MOST_HOSTS} are the limit")
    made: list[str] = []
    for host in hosts:
        name = host.strip().lower()
        if name != "*":
            try:
                rest = _host(name.removeprefix("*."))
            except Refused as refused:
                raise Refused("host", f"hosts: {host[:_LONGEST_NAME]!r}: {refused.reason}") from None
            name = f"*.{rest}" if name.startswith("*.") else rest
        made.append(name)
    return tuple(dict.fromkeys(made))


def destination(authority: str) -> Destination:
    """What stands behind CONNECT.

    Raises:
        Refused: it is no host and port. Forms that programs read in different ways are refused, not guessed.
    """
    host, colon, port = authority.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65_535:  # noqa: PLR2004  (the largest port there is)
        raise Refused("host", "a host and a port are expected: CONNECT api.example.com:443")
    if "@" in host:
        raise Refused("host", "a user name before the host is not taken")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Destination(IPv6Address(host[1:-1] if "%" not in host else "").compressed, int(port))
        except ValueError:
            raise Refused("host", "the IPv6 address is not written as it should be; zones are not taken") from None
    if ":" in host:
        raise Refused("host", "an IPv6 address is written in brackets")
    return Destination(_host(host.lower()), int(port))


def _host(name: str) -> str:
    """A name, or an address in its usual form."""
    if (address := _literal(name)) is not None and "%" not in name:
        return address.compressed
    name = name.removesuffix(".")
    labels = name.split(".")
    if not name.isascii():
        raise Refused("host", "a name with letters beyond ASCII is given in its xn-- form")
    if _NUMBER.fullmatch(labels[-1]):
        raise Refused("host", "an IPv4 address is four decimal numbers without leading zeros")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused("host", "this is no host name")
    if len(labels) == 1:
        raise Refused("host", "a host name has at least two parts")
    return name


def _literal(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def permitted(policy: Policy, wanted: Destination) -> None:
    """Whether the project's own policy lets its bot go there.

    Raises:
        Refused: it does not.
    """
    if not policy.hosts:
        raise Refused("off", f"this project's bot may not connect to the outside: {_opens(wanted)}")
    if wanted.port not in policy.ports:
        ports = " and ".join(str(p) for p in sorted(policy.ports))
        raise Refused("port", f"port {wanted.port} is not open to bots: {ports} are")
    if not any(_matches(pattern, wanted) for pattern in policy.hosts):
        raise Refused("host", f"{wanted.host} is not among the hosts that this project allows: {_opens(wanted)}")


def _opens(wanted: Destination) -> str:
    return f"`loquat bot egress allow {wanted.host}` opens it, or PUT .../bot/egress"


def _matches(pattern: str, wanted: Destination) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return wanted.address is None and wanted.host.endswith(pattern[1:])
    return wanted.host == pattern


class Guard:
    """Which addresses are outside: public ones that are none of the platform's own (`own`, in any network notation).

    Where a NAT64 gateway with a prefix of the operator's own stands, that prefix belongs to `own` too.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self._own: list[Network] = [ip_network(n, strict=False) for n in own]

    def outside(self, address: Address) -> bool:
        """Whether it is."""
        if isinstance(address, IPv4Address):
            refused = any(address in n for n in _REFUSED_V4)
        else:
            isatap = int(address) >> 32 & 0xFFFFFFFF in _ISATAP
            refused = address not in _GLOBAL_V6 or isatap or any(address in n for n in _REFUSED_V6)
        return not refused and not any(address in n for n in self._own if n.version == address.version)

    def check(self, wanted: Destination, found: Sequence[Address]) -> None:
        """All that a name stands for must be outside: one public address beside a private one is a trick or a mistake.

        Raises:
            Refused: it is not. The address is not told: what names stand for inside is nobody's business.
        """
        if not found:
            raise Refused("unknown", f"{wanted.host} has no address")
        if not all(self.outside(a) for a in found):
            raise Refused("private", f"{wanted.host} stands for an address that is not public; bots reach public ones only")
