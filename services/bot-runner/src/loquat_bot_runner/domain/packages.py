"""`requirements.lock`: the packages that a bot needs besides the platform's, each of one version and with the hashes of its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

LOCK: Final = "requirements.lock"
MOST: Final = 50
"""Packages of a lock. Ten is much for a bot."""
_LONGEST: Final = 32 << 10  # characters of one package's lines: some hundred files of one version
_SHOWN: Final = 60
_ADVICE: Final = "`loquat bot lock` writes the file from requirements.txt"
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_PACKAGE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)[ \t]*(?:\[[A-Za-z0-9._, -]*\])?"
    r"[ \t]*==[ \t]*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)[ \t]*(?:;(?P<marker>.*))?"
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_MARKER: Final = re.compile(r"""[a-z][a-z_]*|"[\w.+*!-]*"|'[\w.+*!-]*'|[<>=!~]=?=?|[()]|[ \t]+""", re.ASCII)
_VARIABLES: Final = re.compile(
    r"and|or|in|not|os_name|sys_platform|platform_(machine|python_implementation|release|system|version)"
    r"|python_(full_)?version|implementation_(name|version)"
)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package: `name` is normalized (PEP 503), `hashes` are those of its files, `marker` says where it is wanted."""

    name: str
    version: str
    hashes: tuple[str, ...]
    marker: str = ""

    @property
    def line(self) -> str:
        """As pip reads it."""
        marker = f" ; {self.marker}" if self.marker else ""
        return " ".join([f"{self.name}=={self.version}{marker}", *(f"--hash=sha256:{h}" for h in self.hashes)])


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong in a lock, where, and what to do."""

    message: str
    advice: str
    line: int


def normalized(name: str) -> str:
    """A package's name as all ways of writing it have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def flaws(content: str) -> Iterator[Wrong]:
    """All that is wrong with a lock."""
    found = [*_read(content)]
    yield from (one for one in found if isinstance(one, Wrong))
    packages = [one for one in found if isinstance(one, Package)]
    if len(packages) > MOST:
        yield Wrong(f"there are {len(packages)} packages; {MOST} are the limit", "leave out what the bot does not import", 1)
    plain = Counter(p.name for p in packages if not p.marker)
    for name in sorted(n for n, many in plain.items() if many > 1):
        yield Wrong(f"{name!r} stands there twice", _ADVICE, 1)


def packages_of(content: str) -> tuple[Package, ...]:
    """What a lock without flaws names."""
    return tuple(one for one in _read(content) if isinstance(one, Package))


def lock_of(packages: Iterable[Package]) -> str:
    """The same packages as a lock without anything else: what is given to pip. Nobody's comments, options and variables are in it."""
    return "".join(f"{p.line}\n" for p in packages)


def layer_name(packages: Sequence[Package], python: str, own: Collection[str]) -> str:
    """What is installed for them is named by them, by the interpreter, and by what the platform has itself."""
    return "layer-" + hashlib.sha256(json.dumps([lock_of(packages), python, sorted(own)]).encode()).hexdigest()


def _read(content: str) -> Iterator[Package | Wrong]:
    for number, text in _logical(content):
        yield _package(text, number)


def _logical(content: str) -> Iterator[tuple[int, str]]:
    """Lines joined where one ends in a backslash, without comments; the number is that of the first."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(content.split("\n"), 1):
        text = _COMMENT.sub("", line.rstrip("\r"))
        begun = begun if parts else number
        continues = text.endswith("\\")
        parts.append(text.removesuffix("\\"))
        if not continues:
            yield from ((begun, joined) for joined in [_spaced(parts)] if joined)
            parts = []
    yield from ((begun, joined) for joined in [_spaced(parts)] if joined)


def _spaced(parts: Iterable[str]) -> str:
    """With one space at most in a row: expressions that look for some are slow where there are many."""
    return " ".join(" ".join(parts).split())


def _package(text: str, number: int) -> Package | Wrong:
    if len(text) > _LONGEST:
        return Wrong(f"a package with {len(text)} characters; {_LONGEST} are the limit", _ADVICE, number)
    named, *hashes = re.split(r"[ \t]+(?=--hash)", text)
    if (reason := _foreign(named)) is not None:
        return Wrong(reason, _ADVICE, number)
    found = _PACKAGE.fullmatch(named)
    if found is None:
        return Wrong(f"{named[:_SHOWN]!r} is not name==version", _ADVICE, number)
    name, marker = normalized(found["name"]), (found["marker"] or "").strip()
    if (reason := _lacking(found["marker"], hashes)) is not None:
        return Wrong(f"{name}: {reason}", _ADVICE, number)
    return Package(name, found["version"], tuple(h.removeprefix("--hash=sha256:") for h in hashes), marker)


def _lacking(marker: str | None, hashes: Sequence[str]) -> str | None:
    """What is wrong behind name and version; None: nothing."""
    if marker is not None and not _is_marker(marker):
        return f"{marker.strip()[:_SHOWN]!r} is no condition such as sys_platform == 'linux'"
    if not hashes:
        return "it has no hash; every package needs --hash=sha256:..."
    odd = next((one for one in hashes if _HASH.fullmatch(one) is None), None)
    return f"{odd[:_SHOWN]!r} is not --hash=sha256: and 64 hexadecimal digits" if odd is not None else None


def _foreign(text: str) -> str | None:
    """What pip would take and the platform does not; None: nothing."""
    if text.startswith("-"):
        return f"the option {text.split(maxsplit=1)[0].split('=', maxsplit=1)[0][:_SHOWN]} is not taken: where packages come from is the platform's to say"
    if "://" in text or "@" in text or text.startswith((".", "/", "~")) or "\\" in text:
        return f"{text[:_SHOWN]!r} is an address or a path: only names of packages are taken"
    if "==" not in text.partition(";")[0] or "===" in text.partition(";")[0]:
        return f"{text[:_SHOWN]!r} names no version: name==version"
    return None


def _is_marker(marker: str) -> bool:
    words = {m[0] for m in _MARKER.finditer(marker) if m[0][0].isalpha()}
    return bool(marker.strip()) and _MARKER.sub("", marker) == "" and all(_VARIABLES.fullmatch(word) for word in words)
