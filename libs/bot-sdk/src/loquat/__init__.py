"""What bot code imports: `from loquat import Bot`."""

from loquat.bot import Bot
from loquat.context import Context
from loquat.replies import ReplyRefused

__all__ = ["Bot", "Context", "ReplyRefused"]
