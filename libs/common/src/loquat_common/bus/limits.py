"""Bounds of one member's work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one member's work. Where each was measured stands in docs/adr/0001."""

    concurrency: int = 48
    """Events running at once, over all projects."""
    project_cap: int = 8
    """Events of one project running at once, at most."""
    hold: float = 2.0
    """Seconds an event may keep the watermark of its partition."""
    spill: float = 10.0
    """Seconds for which a project at its cap has its events written to rows at once, after one of them had to go."""
    lane_depth: int = 50
    """Events of one lane in memory."""
    project_depth: int = 200
    """Events of one project in memory."""
    span: int = 1_000
    """Events received and above the watermark, per partition. Bounds the repeats after a crash."""
    span_bytes: int = 64 << 20
    """The same in bytes: events may have 4 MB."""
    offered: int = 64
    """Due rows in memory, per partition."""
