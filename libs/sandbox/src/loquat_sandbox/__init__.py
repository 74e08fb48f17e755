"""Runs code that nobody trusts: workers forked in milliseconds, behind walls that the kernel keeps."""

from loquat_sandbox.client import Zygote
from loquat_sandbox.confined import WITH_ITS_ZYGOTE, Confined, Confinement
from loquat_sandbox.incarnation import ConfinementFailed, ZygoteLost
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits
from loquat_sandbox.measure import Measured, measure
from loquat_sandbox.sandbox import Process, Sandbox
from loquat_sandbox.users import UsersSpent

__all__ = [
    "WITH_ITS_ZYGOTE",
    "Confined",
    "Confinement",
    "ConfinementFailed",
    "Level",
    "Limits",
    "Measured",
    "Process",
    "Sandbox",
    "UsersSpent",
    "Zygote",
    "ZygoteLost",
    "measure",
]
