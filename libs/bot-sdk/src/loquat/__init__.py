"""What bot code imports: `from loquat import Bot, Context, Message`."""

from loquat import replies
from loquat.bot import Bot, Next
from loquat.context import Contact, Context, Conversation
from loquat.messages import (
    Audio,
    ButtonReply,
    Card,
    Choice,
    Contacts,
    Document,
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

__all__ = [
    "Audio",
    "Bot",
    "ButtonReply",
    "Card",
    "Choice",
    "Contact",
    "Contacts",
    "Context",
    "Conversation",
    "Document",
    "Image",
    "ListReply",
    "Location",
    "Media",
    "Message",
    "Next",
    "Reaction",
    "Reply",
    "ReplyRefused",
    "Sticker",
    "Text",
    "Unknown",
    "Video",
    "replies",
]
