"""Change sets with an Idempotency-Key: an order that comes again is the same change set, whatever became of the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loquat_schema_manager.adapters.holder import Holder

from tests.changing import Workshop, control, open_workshop
from tests.system.world import until
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

CREATE: dict[str, Any] = {"change": "create_table", "name": "orders", "columns": []}
OTHER: dict[str, Any] = {"change": "create_table", "name": "others", "columns": []}


@pytest.fixture
async def shop(project: Project, platform: Platform, tmp_path: Path) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform), points=tmp_path) as made:
        yield made


async def order(shop: Workshop, *changes: dict[str, Any], key: str = "one", path: str = "/changes", **more: Any) -> tuple[int, Any]:
    """Status and answer to changes with a key."""
    body = {"changes": list(changes), **more} if path == "/changes" else changes[0]
    async with shop.desk.http.post(shop.desk.base + path, json=body, headers={"Idempotency-Key": key}) as answer:
        return answer.status, await answer.json(content_type=None)


async def recorded(shop: Workshop) -> int:
    return await shop.pool.fetchval("SELECT count(*) FROM change_sets")


async def test_the_same_order_is_the_same_change_set_and_is_done_once(shop: Workshop) -> None:
    add = {"change": "add_column", "table": "orders", "column": {"name": "n", "type": "integer"}}
    await shop.change(CREATE)
    answers = [await order(shop, add, message="x") for _ in range(3)]
    assert [status for status, _ in answers] == [200] * 3
    assert answers[0][1]["state"] == "applied"
    assert answers[1:] == answers[:1] * 2
    assert await recorded(shop) == 2
    assert (await order(shop, {"name": "single"}, key="two", path="/tables")) == (
        await order(shop, {"name": "single"}, key="two", path="/tables")
    )


@pytest.mark.parametrize(
    ("changes", "more"), [([OTHER], {}), ([CREATE], {"message": "y"}), ([CREATE], {"force": True}), ([CREATE, OTHER], {})]
)
async def test_the_key_of_one_order_is_no_key_for_another(shop: Workshop, changes: list[dict[str, Any]], more: dict[str, Any]) -> None:
    made = (await order(shop, CREATE))[1]
    status, problem = await order(shop, *changes, **more)
    assert (status, problem["code"], problem["change_set"]) == (422, "idempotency_key_reused", made["id"])
    assert await recorded(shop) == 1


async def test_of_many_of_the_same_order_at_once_one_is_done(shop: Workshop) -> None:
    answers = await asyncio.gather(*(order(shop, CREATE) for _ in range(6)))
    good = {a["id"] for status, a in answers if status == 200}
    assert len(good) == await recorded(shop) == 1
    assert {a["code"] for status, a in answers if status != 200} <= {"under_way"}
    assert (await order(shop, CREATE))[1]["id"] in good


async def test_an_order_that_was_refused_or_only_tried_may_come_again(shop: Workshop) -> None:
    comment = {"change": "comment_table", "table": "orders", "comment": "x"}
    assert (await order(shop, comment))[0] == 404
    assert (await order(shop, comment, dry_run=True))[1]["state"] == "dry_run"
    await shop.change(CREATE)
    assert (await order(shop, comment, dry_run=True))[1]["state"] == "dry_run"
    assert (await order(shop, comment))[1]["state"] == "applied"


@pytest.mark.parametrize("point", ["changes.done", "changes.sealed", "changes.committed"])
async def test_an_order_whose_process_died_finds_the_truth_when_it_comes_again(shop: Workshop, tmp_path: Path, point: str) -> None:
    (tmp_path / point).write_text("raise")
    assert (await order(shop, CREATE))[0] == 500
    if point == "changes.done":  # no transaction is named, so somebody may still be at work: until the intent is given up
        status, problem = await order(shop, CREATE)
        assert (status, problem["code"]) == (409, "under_way")
        await shop.pool.execute("UPDATE change_sets SET created_at = created_at - interval '1 hour'")
    status, made = await order(shop, CREATE)
    assert (status, made["state"], made["tables"]) == (200, "applied", ["orders"])
    assert await order(shop, CREATE) == (200, made)
    states = [r["state"] for r in await shop.pool.fetch("SELECT state FROM change_sets ORDER BY created_at")]
    assert states == (["applied"] if point == "changes.committed" else ["failed", "applied"])


async def test_an_order_whose_process_is_known_to_be_gone_is_done_anew_at_once(
    project: Project, platform: Platform, tmp_path: Path
) -> None:
    holder = Holder(platform.dsn("schema-manager"))
    living = asyncio.create_task(holder.run())

    async def lives() -> bool:
        return holder.key is not None

    await until(lives, "the process shows that it lives", 5)
    async with open_workshop(project, await control(platform), points=tmp_path, holder=lambda: holder.key) as shop:
        (tmp_path / "changes.done").write_text("raise")
        assert (await order(shop, CREATE))[0] == 500
        status, problem = await order(shop, CREATE)
        assert (status, problem["code"]) == (409, "under_way"), "whoever began it may still be at work"
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)

        async def done() -> bool:
            return (await order(shop, CREATE))[0] == 200

        await until(done, "the server has seen that its client is gone", 5)
        assert [r["state"] for r in await shop.pool.fetch("SELECT state FROM change_sets ORDER BY created_at")] == ["failed", "applied"]


async def test_a_first_attempt_that_was_given_up_does_not_take_effect_beside_the_second(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute("CREATE TABLE slow (a int)")
    lock = bot.transaction()
    await lock.start()
    await bot.execute("LOCK TABLE slow")
    changes = [CREATE, {"change": "comment_table", "table": "slow", "comment": "x"}]
    answers = list[asyncio.Task[tuple[int, Any]]]()
    for n in (1, 2):
        await shop.pool.execute("UPDATE change_sets SET created_at = created_at - interval '1 hour'")
        answers.append(asyncio.create_task(order(shop, *changes)))
        async with asyncio.timeout(5):
            while await recorded(shop) < n:  # noqa: ASYNC110  (another connection)
                await asyncio.sleep(0)
    await lock.commit()
    (first, problem), (second, made) = await asyncio.gather(*answers)
    assert (first, second, made["state"]) == (409, 200, "applied")
    assert problem["code"] in {"locked", "not_unique"}, "it is fenced off, or meets the table that the second has just made"
    assert await order(shop, *changes) == (200, made)


@pytest.mark.parametrize("key", ["x" * 201, "\udcff"])
async def test_a_key_that_cannot_be_one_is_refused(shop: Workshop, key: str) -> None:
    body, headers = b'{"changes": []}', {"Content-Type": "application/json", "Idempotency-Key": key}
    async with shop.desk.http.post(shop.desk.base + "/changes", data=body, headers=headers) as answer:
        assert answer.status == 422
