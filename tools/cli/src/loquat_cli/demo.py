"""The demo project: made at the first start through REST like any other, with a number that the simulator plays."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

from loquat_cli.errors import Trouble
from loquat_cli.rest import Away, Refused, Rest
from loquat_cli.secrets import DemoNumber

NAME: Final = "Demo"
_READY_LIMIT: Final = 60.0  # seconds; half a second is usual
_SIMULATOR_LIMIT: Final = 20.0  # seconds; one is usual
_LOOK: Final = 0.1
_LISTED_LIMIT: Final = 10.0  # seconds; a tenth is usual


class NotReady(Trouble):
    """The project was not made."""


async def ensure_project(rest: Rest, known: str) -> str:
    """The demo project's id. One that its owner deleted is not made again."""
    if known:
        return known
    project: str = (await rest.post("/v1/projects", {"name": NAME}, headers={"Idempotency-Key": "loquat-up-demo"}))["id"]
    await ready(rest, project)
    return project


async def ready(rest: Rest, project: str) -> None:
    """Waits until the project can be used.

    Raises:
        NotReady: its creation failed, or takes too long. The text names the step.
    """
    view: dict[str, Any] = {}
    try:
        async with asyncio.timeout(_READY_LIMIT):
            while (view := await rest.get(f"/v1/projects/{project}"))["status"] == "creating":  # noqa: ASYNC110  (REST has no event to wait for)
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        steps = ", ".join(f"{s['name']} {s['status']}" for s in view.get("steps", ())) or "no step was begun"
        raise NotReady(f"project {project} is not ready after {_READY_LIMIT:g} s: {steps}") from None
    if view["status"] == "failed":
        raise NotReady(f"project {project} failed at {view['failing_step']}: {view['reason']}")


async def introduce(simulator: str, number: DemoNumber, *, gateway: str, app_secret: str, verify_token: str) -> None:
    """Tells the simulator of the number as soon as it answers; it forgets with each start.

    Raises:
        Away: it does not answer in time.
    """
    body = {**number.model_dump(), "webhook_url": f"{gateway}/webhooks/whatsapp", "app_secret": app_secret, "verify_token": verify_token}
    end = monotonic() + _SIMULATOR_LIMIT
    async with Rest(simulator) as rest:
        while True:
            try:
                await rest.post("/api/numbers", body)
            except Away:
                if monotonic() > end:
                    raise
                await asyncio.sleep(_LOOK)
            else:
                return


async def connect_number(rest: Rest, project: str, number: DemoNumber) -> None:
    """Connects the number to the project, once. Its owner may have deleted the project or moved the number since: that stays so."""
    end = monotonic() + _LISTED_LIMIT
    while True:
        try:
            listed = await rest.get(f"/v1/projects/{project}/numbers")
            if not any(n["phone_number_id"] == number.phone_number_id for n in listed["items"]):
                await rest.post(f"/v1/projects/{project}/numbers", number.model_dump())
        except Refused as refused:
            if refused.code == "project_not_ready" and monotonic() < end:
                await asyncio.sleep(_LOOK)  # the gateway hears of a ready project a moment after the provisioner says so
                continue
            if refused.code not in {"not_found", "number_taken", "project_not_ready"}:
                raise
        return
