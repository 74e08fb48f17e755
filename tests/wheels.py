"""Wheels made on the spot, good and bad, and an index on loopback that has them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer


def wheel(files: Mapping[str, str | bytes], name: str = "tiny", version: str = "1.0", tag: str = "py3-none-any") -> tuple[str, bytes]:
    """Its file name and its bytes. What looks compressible is."""
    made, info = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}-{version}-{tag}.whl", made.getvalue()


def line(*packages: tuple[str, bytes]) -> str:
    """What a lock says of one version of a package, of which these are the files."""
    name, version = packages[0][0].removesuffix(".tar.gz").split("-")[:2]
    return (
        " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{hashlib.sha256(content).hexdigest()}" for _, content in packages)])
        + "\n"
    )


@dataclass(slots=True)
class Index:
    """What it has, by file name; `down`: the status that it answers everything with. `asked` counts the files that were fetched."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    down: int | None = None
    asked: int = 0

    def add(self, package: tuple[str, bytes]) -> str:
        """From now on it has this one; the lock's line."""
        self.files[package[0]] = package[1]
        return line(package)

    async def answer(self, request: web.Request) -> web.Response:
        """A page of a project's files, or a file."""
        if self.down is not None:
            return web.Response(status=self.down)
        name = request.match_info["name"]
        if (content := self.files.get(name)) is not None:
            self.asked += 1
            return web.Response(body=content)
        if not (found := [f for f in self.files if f.startswith(f"{name}-")]):
            return web.Response(status=404)
        links = "".join(f'<a href="/{f}#sha256={hashlib.sha256(self.files[f]).hexdigest()}">{f}</a>\n' for f in found)
        return web.Response(text=f"<!DOCTYPE html><html><body>{links}</body></html>", content_type="text/html")


@asynccontextmanager
async def serving() -> AsyncGenerator[Index]:
    """An index without anything."""
    index, app = Index(), web.Application(client_max_size=1 << 10)
    app.router.add_get("/{name}", index.answer)
    app.router.add_get("/{name}/", index.answer)
    async with TestServer(app) as server:
        index.url = str(server.make_url("/"))
        yield index
