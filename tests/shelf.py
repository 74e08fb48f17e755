"""Versions of bots by name, for tests of workers that need no database of the service."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

from loquat_bot_runner.ports import Task
from loquat_events.projects import ProjectListed

QUICK = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    ctx.reply_text(ctx.event.text)\n"
SLOW = "import asyncio\n" + QUICK.replace("    ctx.reply", "    await asyncio.sleep(float(ctx.event.text))\n    ctx.reply")
LOUD = QUICK.replace(
    "    ctx.reply",
    "    import contextlib\n    with contextlib.suppress(OSError):\n        print('x' * 200_000 * (ctx.event.text == 'hi'), flush=True)\n    ctx.reply",
)
NEVER = "import time\ntime.sleep(60)\n" + QUICK


class Shelf:
    """The store, as far as workers ask it: versions by name, lines by project."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {"quick": QUICK, "slow": SLOW, "loud": LOUD, "never": NEVER}
        self.lines: dict[str, list[str]] = {}
        self.writing = asyncio.Event()
        self.writing.set()

    async def files(self, project: str, version: str) -> dict[str, str]:
        del project
        return {"bot.py": self.versions[version]}

    def said(self, project: str, text: str) -> str:
        del project
        return text

    async def log(self, project: str, _event: UUID | None, _level: str, lines: list[str]) -> None:
        await self.writing.wait()
        self.lines.setdefault(project, []).extend(lines)


def task(version: str, text: str = "hi", project: str = "prj_a") -> Task:
    listed = ProjectListed(project_id=project, organization_id="o", name="p", state="ready", cluster="c", database="d")
    event: dict[str, Any] = {"id": str(uuid4()), "type": "text", "text": text, "content": {}}
    someone = {"id": str(UUID(int=1))}
    return Task(listed, version, event, someone, {**someone, "number_id": "1"}, "unstructured", 0)
