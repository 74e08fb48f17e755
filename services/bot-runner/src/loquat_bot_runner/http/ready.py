"""Questions that need a project's own database."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from loquat_common.db import DatabaseAway, WrongDatabase
from loquat_common.directory import Directory
from loquat_common.problems import Problem, not_found
from loquat_events.projects import ProjectListed

from loquat_bot_runner.errors import ProjectDatabaseAway


@contextmanager
def ready(directory: Directory, project_id: str) -> Generator[ProjectListed]:
    """The project, for as long as its database is asked.

    Raises:
        Problem: 404; 409 `project_not_ready`; 503 `database_away` when the block finds it away.
    """
    listed = directory.get(project_id)
    if listed is None:
        raise not_found("project")
    if listed.state != "ready":
        raise Problem(409, "project_not_ready", "The project is not ready", f"It is {listed.state}")
    try:
        yield listed
    except (DatabaseAway, WrongDatabase, ProjectDatabaseAway):
        raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None
