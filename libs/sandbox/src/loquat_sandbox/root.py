"""The root directory of workers: the interpreter and its libraries, read-only, and nothing else of the machine."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from loquat_sandbox import kernel
from loquat_sandbox.limits import Limits

APP: Final = "/app"
PACKAGES: Final = "/packages"
"""What it may import besides the platform's; empty for those that need nothing."""
TEMPORARY: Final = "/tmp"  # noqa: S108  (a file system of the worker's own)
_BUNDLES: Final = "/.bundles"
_SYSTEM: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/usr/share/ca-certificates")
_SETTINGS: Final = ("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/etc/ld.so.cache")
"""Never the folders around them: keys of servers lie beside certificates."""
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FILES: Final = {
    "/etc/passwd": "bot:x:1000:1000::/app:/\n",
    "/etc/group": "bot:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/resolv.conf": "",
}
_PLACE: Final = "/sys"
"""Where the new root is put together: everywhere there, nobody's to plant anything in, and nothing of it is shown."""


def libraries(modules: Iterable[str]) -> list[str]:
    """Where the interpreter, its packages and `modules` (which may be installed as links to their sources) are read from."""
    paths = sysconfig.get_paths()
    found = [*_SYSTEM, *_SETTINGS, str(Path(sys.base_prefix, "lib"))]
    found += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths]
    for module in modules:
        spec = importlib.util.find_spec(module.partition(".")[0])
        if spec is not None and spec.origin is not None:
            found.append(str(Path(spec.origin).parent))
    return list(dict.fromkeys(path for path in found if Path(path).exists()))


def build(shown: Iterable[str], bundles: Path) -> None:
    """Changes this process's root for one that holds `shown` and, for a moment, the bundles. In a mount namespace of its own."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", _PLACE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in sorted(shown):
        _show(path)
    for device in DEVICES:
        Path(_PLACE + device).parent.mkdir(exist_ok=True)
        Path(_PLACE + device).touch()
        kernel.mount(device, _PLACE + device, None, kernel.MS_BIND)
    Path(_PLACE, "etc").mkdir(exist_ok=True)
    for name, text in _FILES.items():
        Path(_PLACE + name).write_text(text, encoding="ascii")
    for name in (APP, PACKAGES, TEMPORARY, _BUNDLES):
        Path(_PLACE + name).mkdir()
    kernel.bind_read_only(str(bundles), _PLACE + _BUNDLES)
    kernel.change_root(_PLACE)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def _show(path: str) -> None:
    """A link stays a link: on many systems /lib is one."""
    target = Path(_PLACE + path)
    if target.exists() or target.is_symlink():  # a folder above it is shown already
        return None
    for parent in reversed(Path(path).parents):
        if parent.is_symlink():
            target = Path(_PLACE + str(parent))
            if not target.is_symlink():
                target.symlink_to(parent.readlink())
            return _show(str(Path(path).resolve()))
        Path(_PLACE + str(parent)).mkdir(mode=0o755, exist_ok=True)
    if Path(path).is_symlink():
        target.symlink_to(Path(path).readlink())
        return _show(str(Path(path).resolve()))
    if Path(path).is_dir():
        target.mkdir()
    else:
        target.touch()
    kernel.bind_read_only(path, str(target))
    return None


def enter(bundle: str, layer: str | None, limits: Limits, user: int) -> None:
    """Puts one bundle at /app, its layer at /packages and an empty file system at /tmp, and takes all else that is below the bundles out of sight.

    In a mount namespace of the worker's own. What is shown may be mapped to be run: a layer may hold modules that are machine code.
    """
    for shown, place in ((bundle, APP), (layer, PACKAGES)):
        if shown is not None:
            kernel.mount(f"{_BUNDLES}/{shown}", place, None, kernel.MS_BIND)
            kernel.mount("none", place, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)
    options = f"size={limits.temporary},nr_inodes={limits.temporary_files},mode=700,uid={user}"
    kernel.mount("tmpfs", TEMPORARY, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
    kernel.detach(_BUNDLES)


def reveals(bundle: str) -> bool:
    """Whether a bundle can be seen: of a folder that was removed and made again nothing can."""
    return os.path.isdir(f"{_BUNDLES}/{bundle}")  # noqa: PTH112  (the name is joined as it came)
