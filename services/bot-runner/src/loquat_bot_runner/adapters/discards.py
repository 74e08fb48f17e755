"""An operator gave up on an event: its marker says so, and the ledger balances."""

from __future__ import annotations

from loquat_common.bus.deferred import DeadLetterDetail
from loquat_common.directory import Directory
from loquat_common.problems import Problem
from loquat_events.catalog import UnknownType, parse
from loquat_events.elements import inbound
from pydantic import ValidationError
from pydantic_core import to_json

from loquat_bot_runner.adapters.runs import ProjectRuns


class Discards:
    """Marks discarded events in their project's database."""

    def __init__(self, directory: Directory, runs: ProjectRuns) -> None:
        self._directory, self._runs = directory, runs

    async def mark(self, project_id: str, letter: DeadLetterDetail) -> None:
        """Marks one. An event that could not even be read has no row there, and needs no marker."""
        project = self._directory.get(project_id)
        try:
            element = inbound(parse(to_json(letter.event)))
        except (ValidationError, UnknownType):
            return
        if project is None or element is None:
            return
        begun = await self._runs.begin(project, element, "discarded")
        if begun.todo in {"recorded", "blocked"}:
            raise Problem(409, "result_recorded", "The event has an outcome already", "Redrive it: what the bot recorded will be applied")
