"""Where bots may go: names in all their disguises, addresses of every kind, policies."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain.destinations import Destination, Guard, Policy, Refused, destination, permitted, policy_hosts

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001:830::200e"]
HIDDEN = [
    *(
        "127.0.0.1",
        "127.8.9.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
    ),
    *(
        "0.0.0.0",  # noqa: S104  (an address in a list)
        "0.1.2.3",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
    ),
    *("240.0.0.1", "192.88.99.1", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1"),
    *(
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:53aa:64c::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "2001:10::1",
    ),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:7f00:1", "::ffff:0:7f00:1"),
]


@pytest.mark.promise("P4")
def test_public_addresses_are_outside_and_all_others_are_not() -> None:
    guard = Guard()
    assert [a for a in PUBLIC if not guard.outside(ip_address(a))] == []
    assert [a for a in HIDDEN if guard.outside(ip_address(a))] == []


@pytest.mark.promise("P4")
@given(
    st.integers(0, 2**32 - 1).map(IPv4Address)
    | st.integers(0, 2**128 - 1).map(IPv6Address)
    | st.integers(0, 2**125 - 1).map(lambda n: IPv6Address(1 << 125 | n))
)
def test_nothing_is_outside_that_python_does_not_call_global(address: IPv4Address | IPv6Address) -> None:
    if Guard().outside(address):
        assert address.is_global
        assert not any((address.is_private, address.is_multicast, address.is_loopback, address.is_link_local, address.is_reserved))


@pytest.mark.promise("P4")
@given(
    st.sampled_from([a for a in HIDDEN if "." in a and ":" not in a]), st.sampled_from(["::ffff:0:0", "::", "64:ff9b::", "::ffff:0:0:0"])
)
def test_a_hidden_address_is_not_outside_in_any_ipv6_dress(hidden: str, prefix: str) -> None:
    inner = int(IPv4Address(hidden))
    assert not Guard().outside(IPv6Address(int(IPv6Address(prefix)) | inner))
    assert not Guard().outside(IPv6Address(0x2002 << 112 | inner << 80 | 1)), "6to4"
    assert not Guard().outside(IPv6Address(0x20010000 << 96 | (inner ^ 0xFFFFFFFF))), "Teredo"


def test_the_platforms_own_addresses_are_not_outside() -> None:
    guard = Guard(["93.184.215.14", "2a00:1450::/32"])
    assert not guard.outside(ip_address("93.184.215.14"))
    assert not guard.outside(ip_address("2a00:1450:4001:830::200e"))
    assert guard.outside(ip_address("93.184.215.15"))


def test_one_hidden_address_among_public_ones_closes_the_name() -> None:
    wanted = Destination("evil.example.com", 443)
    for found in (["1.1.1.1", "127.0.0.1"], ["fe80::1", "1.1.1.1"], []):
        with pytest.raises(Refused):
            Guard().check(wanted, [ip_address(a) for a in found])


@pytest.mark.parametrize(
    "authority",
    [
        *("2130706433:80", "0x7f000001:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.1:80", "127.0.0.1.:80", "127.0.0:80", "017700000001:80"),
        *("1.2.3.0x4:80", "256.1.1.1:80", "1.2.3.4.5:80", "example.1:80", "example.0x:80"),
        *(
            "user@example.com:443",
            "user:pass@example.com:443",
            "example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:443x",
        ),
        *(
            "example.com:٤٤٣",
            "exämple.com:443",
            "example。com:443",
            "ⓔxample.com:443",
            "\uff11\uff12\uff17.0.0.1:80",
            "example.com\0.org:443",
        ),
        *("[::1:80", "::1]:80", "[fe80::1%eth0]:80", "[fe80::1%25eth0]:80", "[::ffff:127.0.0.1:80", "[v1.x]:80", "[127.0.0.1]:80", "[]:80"),
        *(
            "localhost:80",
            "kafka:9092",
            "-x.example.com:80",
            "x-.example.com:80",
            "a..example.com:80",
            ".example.com:80",
            "exa mple.com:80",
        ),
        *(f"{'a' * 64}.com:443", f"{'a.' * 130}com:443", "/etc/passwd:80", "http://example.com:80", "*.example.com:443", ":443", "@:443"),
    ],
)
def test_a_host_in_disguise_is_no_destination(authority: str) -> None:
    with pytest.raises(Refused):
        destination(authority)


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("api.example.com:443", "api.example.com", 443),
        ("API.Example.COM.:443", "api.example.com", 443),
        ("xn--exmple-cua.com:443", "xn--exmple-cua.com", 443),
        ("_dmarc.example.com:80", "_dmarc.example.com", 80),
        ("1.1.1.1:443", "1.1.1.1", 443),
        ("[2606:4700:4700:0::1111]:443", "2606:4700:4700::1111", 443),
        ("[::ffff:1.1.1.1]:443", "::ffff:101:101", 443),
    ],
)
def test_a_plain_host_is_one_destination_however_it_is_written(authority: str, host: str, port: int) -> None:
    assert destination(authority) == Destination(host, port)


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-fx.\[\]:@%-]{1,40}", fullmatch=True))
def test_whatever_is_sent_is_a_destination_in_its_one_form_or_refused(authority: str) -> None:
    try:
        found = destination(authority)
    except Refused:
        return
    host = f"[{found.host}]" if ":" in found.host else found.host
    assert destination(f"{host}:{found.port}") == found
    assert found.host.isascii()


@given(st.integers(0, 2**32 - 1))
def test_number_forms_of_an_address_never_reach_the_resolver(number: int) -> None:
    a, b, c, d = struct.pack("!I", number)
    for form in (
        f"{number}",
        f"{number:#x}",
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.{b}.{c}.{d}",
    ):
        with pytest.raises(Refused):
            destination(f"{form}:443")


@pytest.mark.parametrize(
    ("hosts", "wanted", "outcome"),
    [
        ((), "api.example.com:443", "off"),
        (("api.example.com",), "api.example.com:443", None),
        (("api.example.com",), "api.example.com:8443", "port"),
        (("api.example.com",), "x.api.example.com:443", "host"),
        (("*.example.com",), "a.b.example.com:443", None),
        (("*.example.com",), "example.com:443", "host"),
        (("*.example.com",), "evilexample.com:443", "host"),
        (("*",), "anything.at.all.org:443", None),
        (("*",), "1.1.1.1:443", None),
        (("1.1.1.1",), "1.1.1.1:443", None),
        (("*.1.1.1",), "1.1.1.1:443", "host"),
    ],
)
def test_a_policy_lets_pass_what_it_names_and_nothing_by_default(hosts: tuple[str, ...], wanted: str, outcome: str | None) -> None:
    if outcome is None:
        permitted(Policy(hosts), destination(wanted))
        return
    with pytest.raises(Refused) as refused:
        permitted(Policy(hosts), destination(wanted))
    assert refused.value.outcome == outcome


def test_hosts_of_a_policy_are_checked_and_written_in_one_way() -> None:
    assert policy_hosts(["API.example.com.", "*.Example.org", "*", "api.example.com", "2606:4700::0:1"]) == (
        "api.example.com",
        "*.example.org",
        "*",
        "2606:4700::1",
    )
    for wrong in ("localhost", "*", "https://x.org", "a.*.org", "**.org", "0x7f.1", "*.", "exämple.com"):
        if wrong != "*":
            with pytest.raises(Refused, match="hosts: "):
                policy_hosts([wrong])
    with pytest.raises(Refused, match="100 are the limit"):
        policy_hosts([f"h{n}.example.com" for n in range(101)])
