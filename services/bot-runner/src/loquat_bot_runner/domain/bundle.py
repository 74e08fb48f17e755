"""A bot's files: checked before they are kept, named by their content."""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

MOST_FILES: Final = 200
LARGEST: Final = 1 << 20
"""Bytes of all files of a bundle together."""
_LONGEST_PATH: Final = 200


class BundleRefused(Exception):
    """The bundle cannot be deployed. `file` and `line` say where, as far as that makes sense."""

    def __init__(self, reason: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.file, self.line = reason, file, line


def checked(files: Mapping[str, str]) -> str:
    """The version of a bundle: sha-256 over its files, in hex.

    Raises:
        BundleRefused: too large, a path that leads out, no bot.py, or Python that does not parse.
    """
    if len(files) > MOST_FILES:
        raise BundleRefused(f"the bundle has {len(files)} files; {MOST_FILES} are the limit")
    size = sum(len(path.encode()) + len(_bytes(path, content)) for path, content in files.items())
    if size > LARGEST:
        raise BundleRefused(f"the bundle has {size} bytes; {LARGEST} are the limit")
    for path in files:
        _inside(path)
    if "bot.py" not in files:
        raise BundleRefused("the bundle has no bot.py", "bot.py")
    for path, content in files.items():
        _parses(path, content)
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def _bytes(path: str, content: str) -> bytes:
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise BundleRefused("the file is no valid text", path) from None


def _inside(path: str) -> None:
    parts = PurePosixPath(path).parts
    if (
        not path
        or len(path) > _LONGEST_PATH
        or "\0" in path
        or "\\" in path
        or path.startswith("/")
        or ".." in parts
        or str(PurePosixPath(path)) != path
    ):
        raise BundleRefused("a file's path must be relative, plain and stay inside the bundle", path[:_LONGEST_PATH])


def _parses(path: str, content: str) -> None:
    if path.endswith(".py"):
        try:
            ast.parse(content, path)
        except SyntaxError as error:
            raise BundleRefused(f"{path}, line {error.lineno}: {error.msg}", path, error.lineno) from None
        except ValueError as error:
            raise BundleRefused(f"{path}: {error}", path) from None
    elif path.endswith(".toml"):
        try:
            tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            raise BundleRefused(f"{path}: {error}", path) from None
