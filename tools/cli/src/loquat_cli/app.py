"""The command line: its commands by name, loaded when called."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App

_COMMANDS: Final = "loquat_cli.commands"
_UP: Final = """Start everything on this machine and stay until Ctrl-C.

Two PostgreSQL clusters, all services, the simulator, a first owner, a demo project with the starter bot. Data, secrets and logs stand in
LOQUAT_HOME (./.loquat unless set); a second call finds them again. Every setting is an environment variable: LOQUAT_GATEWAY_PORT (8080),
LOQUAT_SIMULATOR_PORT (8090), LOQUAT_HOST (127.0.0.1), LOQUAT_BUS (postgres or kafka), ...; the command line's README lists them.

Ctrl-C stops all of it in order, Ctrl-C twice at once."""
_STATUS: Final = "Show services, lag, deferred events and databases."
_SAY: Final = "Send a message as a contact through the simulator and print the replies."
_GROUPS: Final = {
    "project": ("Projects: each has its own bot, numbers and database.", ("create", "list", "show", "retry", "delete")),
    "number": ("WhatsApp numbers of projects.", ("connect", "list", "disconnect")),
    "bot": (
        "Bots: make, check and test them here; save them as drafts and versions, deploy them to projects, and see what they do.",
        (
            "init",
            "check",
            "test",
            "lock",
            "run",
            "preview",
            "deploy",
            "rollback",
            "promote",
            "stop",
            "pause",
            "resume",
            "testers",
            "versions",
            "diff",
            "push",
            "pull",
            "logs",
            "runs",
        ),
    ),
    "bot config": ("The bot's configuration: what its owner sets without a deployment.", ("list", "get", "set", "unset")),
    "bot egress": ("Where the bot may connect to, and where it did.", ("show", "allow", "deny", "destinations")),
    "bot limits": ("What the bot may take of the machine.", ("show", "set", "unset")),
    "bot secrets": ("Secrets of the bot: set and replaced, never shown.", ("list", "set", "unset")),
    "bot schedules": ("Schedules that the deployed bot declares.", ("list", "on", "off", "run", "history")),
    "cluster": ("PostgreSQL clusters of an installation in production.", ("upgrade",)),
    "dead": (
        "Dead letters: events that were given up after several tries, and are kept.",
        ("list", "show", "redrive", "discard"),
    ),
}


_HELP: Final = ("--help", "-h")
_ELSEWHERE: Final = {
    "bot": {
        **dict.fromkeys(("deploy", "rollback", "promote", "stop", "pause", "resume", "testers"), "botdeploy"),
        **dict.fromkeys(("versions", "diff"), "botversions"),
        **dict.fromkeys(("push", "pull"), "botdraft"),
        "run": "botrun",
        "preview": "botpreview",
        "lock": "botlock",
        **dict.fromkeys(("logs", "runs"), "botlogs"),
    }
}
"""Commands of a group that stand in a module of their own: one is loaded for its help. A group within another is a module."""


def build(words: Sequence[str] = ()) -> App:
    """The application. `words` are those of the command line: where they ask which commands there are, these are loaded for what they say of themselves."""
    app = App(
        name="loquat",
        help="WhatsApp bots on your own machine.\n\n`loquat up` starts everything here; the other commands talk to it, or to the Loquat that "
        "LOQUAT_URL and LOQUAT_API_KEY name.",
        version=lambda: version("loquat-cli"),
    )
    for name, text in (("up", _UP), ("status", _STATUS), ("say", _SAY)):
        app.command(f"{_COMMANDS}.{name}:{name}", name=name, help=text)
    groups = dict[str, App]()
    for path, (text, commands) in _GROUPS.items():
        above, _, name = path.rpartition(" ")
        group = groups[path] = App(name=name, help=text)
        for command in commands:  # their help is their docstring: the module is loaded for it
            module = _ELSEWHERE.get(path, {}).get(command, path.replace(" ", ""))
            group.command(f"{_COMMANDS}.{module}:{command}_{name}", name=command)
        parts = path.split()
        if list(words[: len(parts)]) == parts and set(words[len(parts) :]) <= set(_HELP):
            group.resolved_commands()
        groups.get(above, app).command(group)
    return app
