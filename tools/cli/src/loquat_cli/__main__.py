"""`loquat`."""

from __future__ import annotations

import sys

from loquat_cli.app import build
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain


def main() -> None:
    """Runs a command. What a person can mend is said in words, with exit code 1."""
    try:
        build(sys.argv[1:])()
    except Trouble as trouble:
        console(stderr=True).print(f"[bold red]loquat:[/] {plain(trouble)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
