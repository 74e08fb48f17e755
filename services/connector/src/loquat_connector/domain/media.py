"""Files at Meta: where one may be fetched, and what is known of it. Limits: reference of the Cloud API, "Media"."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

LARGEST: Final = 100 << 20
"""Bytes: what WhatsApp passes on of a person's file, and takes of a document."""
_META: Final = (".fbsbx.com", ".fbcdn.net", ".facebook.com", ".whatsapp.net", ".whatsapp.com")
_DIGEST: Final = 32
_MIB: Final = 1 << 20
UPLOADS: Final[dict[str, int]] = {"audio/": 16 * _MIB, "video/": 16 * _MIB, "image/webp": 500 << 10, "image/": 5 * _MIB, "": 100 * _MIB}
"""Bytes of what is uploaded, by how its media type begins; the first that fits."""


class NoFile(Exception):
    """Meta's answer is no file that may be fetched."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: where it lies for five minutes, its media type, size and SHA-256."""

    url: str
    mime_type: str
    size: int
    sha256: bytes


def found(answer: dict[str, Any], graph_url: str) -> Found:
    """What `GET /{media_id}` says.

    Raises:
        NoFile: it says nothing of the kind; or the address lies nowhere that Meta's token may go.
    """
    url, mime, size, digest = (answer.get(key) for key in ("url", "mime_type", "file_size", "sha256"))
    if not isinstance(url, str) or not isinstance(mime, str) or not _is_metas(url, graph_url):
        raise NoFile("Meta gave no address that the token may be shown to")
    try:
        return Found(url, mime, _bytes(size), _digest(str(digest)))
    except (TypeError, ValueError):
        raise NoFile("Meta gave no size or no SHA-256") from None


def _bytes(given: Any) -> int:
    """A number, or its digits.

    Raises:
        ValueError, TypeError: neither.
    """
    if (size := int(given)) < 0:
        raise ValueError("no size")
    return size


def _digest(text: str) -> bytes:
    """Webhooks write it in base64, the Graph API in hex: the length tells.

    Raises:
        ValueError: neither.
    """
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * _DIGEST else base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != _DIGEST:
        raise ValueError("no SHA-256")
    return raw


def _is_metas(url: str, graph_url: str) -> bool:
    """The Graph API's own place (a simulator's, too), or a host of Meta's over TLS."""
    try:
        parts, graph = urlsplit(url), urlsplit(graph_url)
        host = (parts.hostname or "").lower()
        if (parts.scheme, host, parts.port) == (graph.scheme, graph.hostname, graph.port):
            return not parts.username
        return parts.scheme == "https" and parts.port in {None, 443} and not parts.username and host.endswith(_META)
    except ValueError:
        return False


def largest(mime_type: str) -> int:
    """Bytes of an upload of this type."""
    return next(most for begin, most in UPLOADS.items() if mime_type.startswith(begin))
