"""The promises of docs/architecture.md, as a manifest: no promise without a test, no test of a promise that is not made."""

from __future__ import annotations

PROMISES = {
    "P1": "Acknowledged means kept: Meta gets its 200 only after the event is durable on the bus.",
    "P2": "Once: recorded once, its outcome applied once, each reply sent at most once; what cannot be learned ends as unknown, visible.",
    "P3": "In order, without waiting for others: one conversation's events one by one; no project starves another.",
    "P4": "Walls: a project's code, rows, files, secrets and logs are unreachable from any other project and from the public.",
    "P5": "System tables are safe: readable, never droppable, alterable, forgeable or blockable.",
    "P6": "Unknown is kept: stored raw, shown, acknowledged; never a 500, never dropped.",
    "P7": "Accounted for: accepted = handled + held + expired + discarded + deferred + dead + waiting.",
    "P8": "No secret leaves: encrypted at rest, never logged, never in an event.",
}
