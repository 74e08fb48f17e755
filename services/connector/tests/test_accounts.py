"""Meta's updates that name no person: kept raw, shown to whom they concern, for a time."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.bus.port import Done
from loquat_common.http import internal_auth
from loquat_common.tokens import Actor, Signer, Verifier, new_key
from loquat_connector.http.api import NumberApi
from loquat_events.numbers import AccountUpdateReceived

from services.connector.tests.office import NUMBER, PROJECT, Office

OTHER, SECOND = "prj_b", "106540352242999"


def update(field: str, *, number: str | None = None, waba: str = "waba") -> AccountUpdateReceived:
    return AccountUpdateReceived(waba_id=waba, number_id=number, field=field, raw='{"from": "the future", "x": "\\u0000\\ud800"}')


async def shown(office: Office, project: str) -> list[str]:
    return [u.field for u in await office.accounts.of_project(project, None, 50)]


@pytest.mark.promise("P6")
async def test_an_update_of_an_unknown_field_is_kept_once_and_as_it_came(office: Office) -> None:
    key, unknown = uuid4(), update("from_the_future", number=NUMBER)
    assert [await office.handle(unknown, "waba", id=key) for _ in range(2)] == [Done(), Done()]
    (kept,) = await office.accounts.of_project(PROJECT, None, 50)
    assert (kept.field, kept.number_id, kept.raw) == ("from_the_future", NUMBER, unknown.raw)


@pytest.mark.promise("P4")
async def test_updates_are_shown_to_who_had_the_number_or_has_one_of_the_account_since(office: Office) -> None:
    await office.handle(update("before anybody", number=SECOND))
    await office.handle(update("account, before"))
    await office.attach(SECOND, OTHER, "EAAother")
    for order in (update("mine", number=NUMBER), update("theirs", number=SECOND), update("account"), update("elsewhere", waba="w2")):
        await office.handle(order)
    assert await shown(office, PROJECT) == ["account", "mine", "account, before"]
    assert await shown(office, OTHER) == ["account", "theirs"]
    await office.numbers.attach(OTHER, NUMBER, "waba", "EAA", None, move_from=PROJECT)
    assert "mine" not in await shown(office, OTHER), "what came for another project stays that one's"


async def test_what_was_kept_long_enough_ends(office: Office) -> None:
    for field in ("old", "new"):
        await office.handle(update(field, number=NUMBER))
    await office.pool.execute("UPDATE account_updates SET received_at = now() - interval '91 days' WHERE field = 'old'")
    await office.pool.execute(
        "INSERT INTO unrouted (event_id, number_id, waba_id, change, received_at)"
        " SELECT gen_random_uuid(), 'n', 'w', '{}', now() - d * interval '1 day' FROM unnest(ARRAY[1, 29, 31, 60]) AS d"
    )
    assert await office.accounts.expire() == 3
    assert await shown(office, PROJECT) == ["new"]


async def test_updates_are_listed_in_pages(office: Office) -> None:
    for n in range(5):
        await office.handle(update(f"f{n}", number=NUMBER))
    private, public = new_key()
    api = NumberApi(office.numbers, office.accounts, 0.0, office.wake, internal_auth(Verifier({"gateway": public}, "connector")))
    path, actor = f"/internal/projects/{PROJECT}/account-updates", Actor("user", "u", "o", PROJECT, frozenset({"numbers:read"}))
    token = Signer("gateway", private).sign(actor, "connector", "GET", path)
    fields, before = list[str](), dict[str, Any]()
    async with TestClient(TestServer(api.api.app())) as client:
        for _ in range(3):
            async with client.get(path, params={"limit": 2, **before}, headers={"Authorization": f"Bearer {token}"}) as response:
                items = (await response.json())["items"]
            fields += [i["field"] for i in items]
            before = {"before": items[-1]["id"]}
    assert fields == ["f4", "f3", "f2", "f1", "f0"]
