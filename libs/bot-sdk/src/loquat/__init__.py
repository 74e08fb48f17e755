"""What bot code imports: `from loquat import Bot, Context, Message`."""

from loquat import replies
from loquat.asking import AskAgain, NoAnswer
from loquat.bot import Bot, Next
from loquat.config import Config, Secrets
from loquat.contact import Contact, ContactRefused
from loquat.context import Context, Conversation
from loquat.media import File, Files, MediaFailed, MediaGone, MediaRefused, MediaTooLarge, Uploaded
from loquat.memory import Memory, MemoryRefused
from loquat.messages import (
    Audio,
    ButtonReply,
    Card,
    Choice,
    Contacts,
    Document,
    FlowReply,
    Image,
    ListReply,
    Location,
    Media,
    Message,
    Reaction,
    Sticker,
    Text,
    Unknown,
    Video,
)
from loquat.replies import Reply, ReplyRefused
from loquat.schedules import ScheduleContext
from loquat.timers import HandedBack, Timer, TimerRefused
from loquat.tools import Tool, ToolRefused, Tools
from loquat.voice import NotSaid
from loquat.web import Answer, HttpFailed

__all__ = [
    "Answer",
    "AskAgain",
    "Audio",
    "Bot",
    "ButtonReply",
    "Card",
    "Choice",
    "Config",
    "Contact",
    "ContactRefused",
    "Contacts",
    "Context",
    "Conversation",
    "Document",
    "File",
    "Files",
    "FlowReply",
    "HandedBack",
    "HttpFailed",
    "Image",
    "ListReply",
    "Location",
    "Media",
    "MediaFailed",
    "MediaGone",
    "MediaRefused",
    "MediaTooLarge",
    "Memory",
    "MemoryRefused",
    "Message",
    "Next",
    "NoAnswer",
    "NotSaid",
    "Reaction",
    "Reply",
    "ReplyRefused",
    "ScheduleContext",
    "Secrets",
    "Sticker",
    "Text",
    "Timer",
    "TimerRefused",
    "Tool",
    "ToolRefused",
    "Tools",
    "Unknown",
    "Uploaded",
    "Video",
    "replies",
]
