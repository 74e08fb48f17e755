"""What a person can do something about. The text is complete: it is shown as it is, without a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """The base of all errors whose text is for the person at the terminal."""
