"""What can be wrong besides what libraries raise."""

from __future__ import annotations


class UnknownCluster(Exception):
    """The cluster is not in this service's settings."""


class OutcomeUnknown(Exception):
    """A commit was sent and no answer came."""
