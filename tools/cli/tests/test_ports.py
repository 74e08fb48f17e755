"""The ports of a stack."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from loquat_cli.ports import Ports, PortsBusy
from loquat_cli.settings import StackSettings


def settings(**more: object) -> StackSettings:
    return StackSettings.for_tests(Path("unused"), **more)


def test_free_ports_are_all_different_and_free() -> None:
    ports = Ports.choose(settings(bus="kafka"))
    ports.check()
    numbers = [p.number for p in ports.all()]
    assert len(numbers) == len(set(numbers)) == 17
    assert all(n < 32_000 for n in numbers)


def test_ports_that_are_set_are_used_and_internal_ones_stand_in_a_row() -> None:
    ports = Ports.choose(settings(gateway_port=18_080, internal_ports=18_110))
    assert ports.gateway.number == 18_080
    assert [*(p.number for p in ports.api.values()), *(p.number for p in ports.health.values())] == list(range(18_110, 18_121))


def test_every_busy_port_is_named_with_its_setting() -> None:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        gateway, tenants = one.getsockname()[1], two.getsockname()[1]
        with pytest.raises(PortsBusy) as busy:
            Ports.choose(settings(gateway_port=gateway, tenants_port=tenants)).check()
    assert f"port {gateway}, for the gateway, is taken by another program: end that, or set LOQUAT_GATEWAY_PORT" in str(busy.value)
    assert f"port {tenants}, for the PostgreSQL of the projects" in str(busy.value)


def test_one_port_for_two_purposes_is_refused_with_both_settings() -> None:
    port = Ports.choose(settings()).gateway.number
    with pytest.raises(PortsBusy, match=r"set for the gateway \(LOQUAT_GATEWAY_PORT\) and for the simulator \(LOQUAT_SIMULATOR_PORT\)"):
        Ports.choose(settings(gateway_port=port, simulator_port=port)).check()
