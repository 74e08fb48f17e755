"""Every metric of the platform: name, unit, meaning, labels. Labels come from closed sets, never a contact, message or project."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry()
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# HTTP
http_requests = Counter("loquat_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=REGISTRY)
http_seconds = Histogram("loquat_http_seconds", "Time to an answer.", ("route",), buckets=_SECONDS, registry=REGISTRY)

# Bus
bus_published = Counter("loquat_bus_published_total", "Events confirmed durable.", ("topic",), registry=REGISTRY)
bus_publish_seconds = Histogram("loquat_bus_publish_seconds", "Time until a publish was durable.", buckets=_SECONDS, registry=REGISTRY)
bus_outcomes = Counter("loquat_bus_outcomes_total", "What handlers answered.", ("group", "topic", "outcome"), registry=REGISTRY)
bus_lag = Gauge(
    "loquat_bus_lag_events", "Events of the log not finished by this process' partitions.", ("group", "topic"), registry=REGISTRY
)
bus_in_flight = Gauge("loquat_bus_in_flight_events", "Events being handled.", ("group",), registry=REGISTRY)
bus_oldest = Gauge("loquat_bus_oldest_unfinished_seconds", "Age of the oldest event in memory.", ("group",), registry=REGISTRY)

bus_orphans = Counter(
    "loquat_bus_orphans_total", "Events of projects that are gone: finished, nobody is there.", ("service",), registry=REGISTRY
)

# Webhook
webhook_bodies = Counter("loquat_webhook_bodies_total", "Webhook bodies by what became of them.", ("outcome",), registry=REGISTRY)
webhook_updates = Counter("loquat_webhook_updates_total", "Updates in accepted bodies.", ("topic",), registry=REGISTRY)

# Bots
bot_calls = Counter("loquat_bot_calls_total", "Calls of bot code.", ("outcome",), registry=REGISTRY)
bot_call_seconds = Histogram("loquat_bot_call_seconds", "Time of a call of bot code.", buckets=_SECONDS, registry=REGISTRY)
bot_workers = Gauge("loquat_bot_workers", "Worker processes of bots.", registry=REGISTRY)
bot_isolation = Gauge(
    "loquat_bot_isolation_level",
    "What separates bots from each other: 0 processes, 1 filters, 2 namespaces, 3 users and control groups too.",
    registry=REGISTRY,
)
bot_database_links = Gauge("loquat_bot_database_links", "Connections of bots to their own databases.", registry=REGISTRY)
bot_database_refused = Counter(
    "loquat_bot_database_refused_total",
    "Connections of bots to their databases that were refused, by SQLSTATE.",
    ("code",),
    registry=REGISTRY,
)
bot_fired = Counter("loquat_bot_fired_total", "Times of timers and schedules that were put into the inbox.", registry=REGISTRY)
bot_egress = Counter("loquat_bot_egress_total", "Connections of bots to the outside.", ("outcome",), registry=REGISTRY)
bot_egress_bytes = Counter("loquat_bot_egress_bytes_total", "Bytes of bots' connections to the outside.", ("way",), registry=REGISTRY)

# Sending
send_attempts = Counter("loquat_send_attempts_total", "Attempts to hand a message to Meta.", ("outcome",), registry=REGISTRY)
typing = Counter("loquat_typing_total", "Times that a bot was writing, by what came of showing it.", ("outcome",), registry=REGISTRY)
send_queue = Gauge("loquat_send_queue_messages", "Messages that wait to be sent.", registry=REGISTRY)

# Databases
pool_connections = Gauge("loquat_pool_connections", "Open connections to project databases.", registry=REGISTRY)
reaped = Counter("loquat_reaped_sessions_total", "Tenant sessions ended by the reaper.", ("reason",), registry=REGISTRY)
schema_attempts = Counter(
    "loquat_schema_attempts_total", "Project databases tried to be brought to the current schema.", ("outcome",), registry=REGISTRY
)
schema_behind = Gauge("loquat_schema_behind_databases", "Project databases whose schema is not the current one.", registry=REGISTRY)
bootstrap_behind = Gauge(
    "loquat_cluster_bootstrap_behind",
    "Versions by which a tenant cluster's bootstrap is older than this release.",
    ("cluster",),
    registry=REGISTRY,
)
change_sets = Counter("loquat_change_sets_total", "Change sets of projects' tables, dry runs aside.", ("outcome",), registry=REGISTRY)
project_steps = Counter("loquat_project_steps_total", "Steps of projects' lives.", ("step", "status"), registry=REGISTRY)


def exposition() -> bytes:
    """All of them in Prometheus' text form."""
    return generate_latest(REGISTRY)
