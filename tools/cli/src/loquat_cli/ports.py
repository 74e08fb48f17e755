"""The ports of a stack: chosen once, all of them looked at before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from loquat_embedded.ports import free_port, port_is_free
from loquat_events.catalog import SERVICES

from loquat_cli.errors import Trouble
from loquat_cli.settings import StackSettings

INTERNAL: Final = tuple(name for name in SERVICES if name != "gateway")
"""Services that answer to other services only."""


class PortsBusy(Trouble):
    """Other programs listen on ports that the stack needs. The text names each with its setting."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port, who listens there, and the setting that changes it."""

    number: int
    purpose: str
    setting: str
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """All of a stack's ports by purpose. `api` and `health` are by service."""

    gateway: Port
    simulator: Port
    platform: Port
    tenants: Port
    kafka: tuple[Port, ...]
    api: dict[str, Port] = field(default_factory=dict[str, Port])
    health: dict[str, Port] = field(default_factory=dict[str, Port])

    @classmethod
    def choose(cls, settings: StackSettings) -> Ports:
        """Those of the settings; a free one for each that is 0."""
        taken: set[int] = set()

        def port(number: int, purpose: str, setting: str, host: str = "127.0.0.1") -> Port:
            chosen = number or free_port(besides=frozenset(taken))
            taken.add(chosen)
            return Port(chosen, purpose, setting, host)

        def row(first: int, count: int) -> Iterator[int]:
            yield from (first + n if first else 0 for n in range(count))

        inside = row(settings.internal_ports, len(INTERNAL) + len(SERVICES))
        setting = "LOQUAT_INTERNAL_PORTS"
        brokers = row(settings.kafka_port, 2) if settings.bus == "kafka" else iter(())
        return cls(
            gateway=port(settings.gateway_port, "the gateway", "LOQUAT_GATEWAY_PORT", settings.host),
            simulator=port(settings.simulator_port, "the simulator", "LOQUAT_SIMULATOR_PORT", settings.host),
            platform=port(settings.platform_port, "the platform's PostgreSQL", "LOQUAT_PLATFORM_PORT"),
            tenants=port(settings.tenants_port, "the PostgreSQL of the projects", "LOQUAT_TENANTS_PORT"),
            kafka=tuple(port(n, "Kafka", "LOQUAT_KAFKA_PORT") for n in brokers),
            api={name: port(next(inside), f"the {name}'s API", setting) for name in INTERNAL},
            health={name: port(next(inside), f"the {name}'s health", setting) for name in SERVICES},
        )

    def all(self) -> list[Port]:
        """Every one of them."""
        return [self.gateway, self.simulator, self.platform, self.tenants, *self.kafka, *self.api.values(), *self.health.values()]

    def check(self) -> None:
        """Looks whether all are free and different.

        Raises:
            PortsBusy: with a line for each that is not.
        """
        wrong: list[str] = []
        seen: dict[int, Port] = {}
        for port in self.all():
            if (other := seen.get(port.number)) is not None:
                wrong.append(f"port {port.number} is set for {other.purpose} ({other.setting}) and for {port.purpose} ({port.setting})")
            elif not port_is_free(port.number, port.host):
                wrong.append(f"port {port.number}, for {port.purpose}, is taken by another program: end that, or set {port.setting}")
            seen[port.number] = port
        if wrong:
            raise PortsBusy("\n".join(wrong))
