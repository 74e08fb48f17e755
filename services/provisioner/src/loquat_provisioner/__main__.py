"""`python -m loquat_provisioner` runs the service."""

from __future__ import annotations

from loquat_common.service import run

from loquat_provisioner.app import serve
from loquat_provisioner.settings import Settings

if __name__ == "__main__":
    run("provisioner", Settings, serve)
