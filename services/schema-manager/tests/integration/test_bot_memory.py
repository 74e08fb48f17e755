"""A bot's memory, configuration and contact on a real project database: the walls around them, what a rollback leaves, their limits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from tests.system.world import until
from tests.tenants import WAITING, Desk, Project, message, order

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SET = "SELECT loquat.memory_set($1, $2, $3, $4, $5)"
GET = "SELECT loquat.memory_get($1, $2, $3)"
ADD = "SELECT total, refused FROM loquat.memory_increment($1, $2, $3, $4, $5)"
LATER = "UPDATE loquat.bot_memories SET expires_at = expires_at - $1::interval"


async def opened(desk: Desk, person: str = "user_id:u1") -> tuple[UUID, int]:
    """An event that the bot works on, and its version."""
    event = message(person)
    begun = await desk.begin(event)
    assert begun["todo"] == "run"
    return UUID(event["id"]), begun["version"]


async def add(bot: Connection, event: UUID, key: str, amount: int = 1, ttl: timedelta | None = None, *, of_contact: bool = False) -> Any:
    row = await bot.fetchrow(ADD, event, of_contact, key, amount, ttl)
    assert row is not None
    return row["refused"] or row["total"]


@pytest.mark.promise("P2")
async def test_what_a_handler_remembers_is_there_with_its_result_or_not_at_all(desk: Desk, project: Project) -> None:
    event, version = await opened(desk)
    bot = await project.login("bot")
    for commit in (False, True):
        await bot.execute("BEGIN")
        assert await bot.fetchval(SET, event, False, "seen", {"n": 1}, None)
        assert await add(bot, event, "count") == 1
        await bot.execute("SELECT loquat.record_result($1, $2, '{}')", event, version)
        await bot.execute("COMMIT" if commit else "ROLLBACK")
    root = await project.root()
    assert [tuple(r) for r in await root.fetch("SELECT key, value FROM loquat.bot_memories ORDER BY key")] == [
        ("count", 1),
        ("seen", {"n": 1}),
    ]


async def test_the_bots_memory_is_one_and_every_contact_has_its_own(desk: Desk, project: Project) -> None:
    (ada, _), (bob, _) = await opened(desk, "user_id:ada"), await opened(desk, "user_id:bob")
    bot = await project.login("bot")
    await bot.execute(SET, ada, False, "k", "everybody's", None)
    await bot.execute(SET, ada, True, "k", "ada's", None)
    assert [await bot.fetchval(GET, e, c, "k") for e, c in ((bob, False), (ada, True), (bob, True))] == ["everybody's", "ada's", None]
    assert await bot.fetchval("SELECT loquat.memory_delete($1, true, 'k')", bob) is False
    assert await bot.fetchval("SELECT loquat.memory_delete($1, true, 'k')", ada) is True
    assert [await bot.fetchval(GET, ada, c, "k") for c in (False, True)] == ["everybody's", None]


async def test_of_many_that_count_at_once_every_one_counts(desk: Desk, project: Project) -> None:
    events = [(await opened(desk, f"user_id:{n}"))[0] for n in range(4)]
    bots = [await project.login("bot") for _ in events]
    await asyncio.gather(*(add(bot, event, "n") for bot, event in zip(bots, events, strict=True)))
    totals = [await add(bots[0], events[0], "n") for _ in range(3)]
    assert totals == [5, 6, 7]


async def test_what_has_expired_is_as_if_it_had_never_been_and_goes_with_the_next_run(desk: Desk, project: Project) -> None:
    event, _ = await opened(desk)
    bot, root = await project.login("bot"), await project.root()
    hour = timedelta(hours=1)
    await bot.execute(SET, event, False, "gone", 1, hour)
    assert [await add(bot, event, "window", 1, hour), await add(bot, event, "window", 1, 5 * hour)] == [1, 2]
    await root.execute(LATER, hour)
    assert await bot.fetchval(GET, event, False, "gone") is None
    assert await bot.fetchval("SELECT loquat.memory_delete($1, false, 'gone')", event) is False, "it was there no more"
    assert await add(bot, event, "window", 1, hour) == 1, "the hour ran from the first of them"
    await bot.execute(SET, event, False, "window", 1, None)
    await root.execute(LATER, hour)
    assert await bot.fetchval(GET, event, False, "window") == 1, "set without a time to live it lasts"
    await bot.executemany(SET, [(event, False, f"k{n}", n, hour) for n in range(30)])
    await root.execute(LATER, hour)
    left: list[int] = []
    for _ in range(2):
        await desk.runner.fetchval("SELECT loquat.context_of(NULL)")
        left.append(await root.fetchval("SELECT count(*) FROM loquat.bot_memories"))
    assert left == [11, 1]


async def test_forgetting_does_not_wait_for_what_a_bots_transaction_holds(desk: Desk, project: Project) -> None:
    event, _ = await opened(desk)
    bot, root = await project.login("bot"), await project.root()
    await bot.execute(SET, event, False, "held", 1, timedelta(seconds=1))
    await root.execute(LATER, timedelta(seconds=1))
    await bot.execute("BEGIN")
    await bot.execute(SET, event, False, "held", 2, None)
    async with asyncio.timeout(5):
        await desk.runner.fetchval("SELECT loquat.context_of(NULL)")
    await bot.execute("COMMIT")
    assert await bot.fetchval(GET, event, False, "held") == 2


async def test_counting_what_is_no_number_and_beyond_53_bits_is_answered_and_the_transaction_goes_on(desk: Desk, project: Project) -> None:
    event, _ = await opened(desk)
    bot = await project.login("bot")
    await bot.execute("BEGIN")
    for value in ("text", 1.5, True, [1], 2**53 - 1):
        await bot.execute(SET, event, False, "k", value, None)
        assert await add(bot, event, "k") == "number", value
    assert await add(bot, event, "new", 2**53) == "number"
    await bot.execute(SET, event, False, "k", 2**53 - 2, None)
    assert await add(bot, event, "k") == 2**53 - 1
    await bot.execute("COMMIT")


async def test_at_a_hundred_thousand_keys_no_other_is_made_and_those_that_are_there_change(desk: Desk, project: Project) -> None:
    event, _ = await opened(desk)
    bot, root = await project.login("bot"), await project.root()
    await root.execute("BEGIN")  # not committed: 100,000 rows cost less so; only this session sees them
    await root.execute(
        "INSERT INTO loquat.bot_memories (bot_id, key, value) SELECT loquat.this_bot(), 'k' || n, '1' FROM generate_series(1, 99999) AS n"
    )
    full = "SELECT loquat.memory_is_full(loquat.this_bot())"
    assert await root.fetchval(full) is False
    await root.execute("INSERT INTO loquat.bot_memories (bot_id, key, value) VALUES (loquat.this_bot(), 'last', '1')")
    assert await root.fetchval(full) is True
    await root.execute(f"SET SESSION AUTHORIZATION {project.names.login('bot')}; SET ROLE {project.names.owner}")
    assert await root.fetchval(SET, event, False, "another", 1, None) is False
    assert await root.fetchval(SET, event, False, "last", 2, None) is True
    assert [await add(root, event, "another"), await add(root, event, "last")] == ["full", 3]
    await root.execute("ROLLBACK")
    assert await bot.fetchval(SET, event, False, "another", 1, None) is True


@pytest.mark.parametrize(
    "call",
    [
        "memory_set($1, false, '', '1')",
        "memory_set($1, false, repeat('k', 201), '1')",
        "memory_set($1, false, NULL, '1')",
        "memory_set($1, false, 'k', NULL)",
        "memory_set($1, false, 'k', to_jsonb(repeat('x', 65536)))",
        "memory_set($1, false, 'k', '1', '0')",
        "memory_set($1, false, 'k', '1', '11 years')",
        "memory_increment($1, false, repeat('k', 201), 1)",
        "memory_increment($1, false, 'k', NULL)",
    ],
)
async def test_what_is_beyond_a_limit_is_refused_by_the_database_itself(desk: Desk, project: Project, call: str) -> None:
    event, _ = await opened(desk)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await (await project.login("bot")).execute(f"SELECT loquat.{call}", event)
    assert refused.value.sqlstate == "LQ005"


@pytest.mark.promise("P5")
async def test_only_the_bot_reaches_a_memory_and_only_through_an_event_that_is_open(desk: Desk, project: Project) -> None:
    event, version = await opened(desk)
    bot = await project.login("bot")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await bot.execute("SELECT * FROM loquat.bot_memories")
    for login in ("editor", "direct"):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await (await project.login(login)).execute(GET, event, False, "k")
        assert refused.value.sqlstate == "LQ002"
    told = order("user_id:u1")
    await desk.begin(told)
    recorded = message("user_id:u2")
    await desk.record(recorded)
    await desk.commit({"id": str(event)}, version, {})
    for over in (event, UUID(told["id"]), UUID(recorded["id"])):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await bot.execute(SET, over, False, "k", 1, None)
        assert refused.value.sqlstate == "LQ003"


async def test_a_result_changes_its_own_contact_once_and_no_other(desk: Desk, project: Project) -> None:
    other = message("user_id:u2", name="Bob")
    await desk.run(other)
    event = message("user_id:u1", "phone:+491", name="ada")
    begun = await desk.begin(event)
    given = {"name": "Ada L.", "language": "pt_BR", "attributes": {"vip": True, "tags": [1], "none": None}}
    assert (await desk.commit(event, begun["version"], {"contact": given}))["status"] == "committed"
    await desk.run(message("user_id:u1", name="ada"), contact={"attributes": {"tags": None, "size": "L"}})
    context = await desk.runner.fetchval("SELECT loquat.context_of($1)", begun["contact_id"])
    assert context["contact"] == {"name": "Ada L.", "language": "pt_BR", "phone_number": "+491", "attributes": {"vip": True, "size": "L"}}
    rows = await (await project.login("bot")).fetch("SELECT name, language, attributes FROM contacts ORDER BY name")
    assert [tuple(r) for r in rows] == [("Ada L.", "pt_BR", {"vip": True, "size": "L"}), ("Bob", None, {})]


async def test_attributes_that_grow_beyond_their_limit_stay_as_they_are_and_the_result_is_applied(desk: Desk, project: Project) -> None:
    await desk.run(message("user_id:u1"), contact={"attributes": {"a": "x" * 40_000}})
    await desk.run(message("user_id:u1"), contact={"name": "Ada", "attributes": {"b": "x" * 40_000}}, state="next")
    row = await (await project.root()).fetchrow("SELECT name, attributes FROM public.contacts")
    assert row is not None
    assert (row["name"], list(row["attributes"])) == ("Ada", ["a"])


@pytest.mark.parametrize(
    "contact",
    [
        "ada",
        {"name": ""},
        {"name": 3},
        {"name": "x" * 201},
        {"language": "german please"},
        {"attributes": []},
        {"attributes": {"a": "x" * 65_536}},
    ],
)
async def test_a_contact_that_could_not_be_stored_is_refused_with_its_result(desk: Desk, project: Project, contact: object) -> None:
    event, version = await opened(desk)
    with pytest.raises(asyncpg.PostgresError, match="the result has a contact") as refused:
        await (await project.login("bot")).execute("SELECT loquat.record_result($1, $2, $3)", event, version, {"contact": contact})
    assert refused.value.sqlstate == "LQ001"


@pytest.mark.promise("P4")
async def test_a_bots_open_transaction_does_not_hold_up_what_its_contact_writes_next(desk: Desk, project: Project) -> None:
    event, version = await opened(desk)
    bot = await project.login("bot")
    await bot.execute("BEGIN")
    await bot.execute(SET, event, True, "k", 1, None)
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", event, version, {"contact": {"name": "Ada"}})
    async with asyncio.timeout(1):
        await desk.record(message("user_id:u1", "phone:+491", name="the first name it has"))
    await bot.execute("COMMIT")
    assert (await desk.commit({"id": str(event)}))["status"] == "committed"
    assert await bot.fetchval("SELECT name FROM contacts") == "Ada"


async def test_configuration_goes_with_the_next_run_and_its_limits_are_named(desk: Desk) -> None:
    runner = desk.runner
    await runner.execute("SELECT loquat.configure($1, $2)", "greeting", "Hello")
    await runner.execute("SELECT loquat.configure($1, $2)", "greeting", {"text": "Hi"})
    context = await runner.fetchval("SELECT loquat.context_of(NULL)")
    assert (context["config"], context["contact"], context["secrets"]) == ({"greeting": {"text": "Hi"}}, None, None)
    assert [r["key"] for r in await runner.fetch("SELECT key FROM loquat.configuration()")] == ["greeting"]
    for key, value, limit in (("k" * 201, 1, "200 characters"), ("k", "x" * 16384, "16 KiB")):
        with pytest.raises(asyncpg.PostgresError, match=limit):
            await runner.execute("SELECT loquat.configure($1, $2)", key, value)
    with pytest.raises(asyncpg.PostgresError, match="256 KiB"):
        await runner.fetch("SELECT loquat.configure('k' || n, to_jsonb(repeat('x', 16000))) FROM generate_series(1, 20) AS n")
    with pytest.raises(asyncpg.PostgresError, match="500 keys"):
        await runner.fetch("SELECT loquat.configure('k' || n, '1') FROM generate_series(1, 501) AS n")
    assert await runner.fetchval("SELECT loquat.unconfigure('greeting')") is True
    assert await runner.fetchval("SELECT loquat.unconfigure('greeting')") is False


async def test_a_change_of_the_secrets_is_known_by_an_id_that_never_comes_twice(desk: Desk) -> None:
    seen = set[str]()
    for _ in range(3):
        await desk.runner.execute("SELECT loquat.secrets_changed()")
        seen.add((await desk.runner.fetchval("SELECT loquat.context_of(NULL)"))["secrets"])
    assert len(seen) == 3


async def test_a_new_project_has_its_bot_once_under_its_projects_name(tenants: Any) -> None:
    project = await tenants.project()
    root = await project.root()
    (before,) = await root.fetch("SELECT id, name, org_id FROM loquat.bots")
    await tenants.databases.open(project.names, project.project_id, 1, name="Ada's shop", organization="org_1")
    assert [tuple(r) for r in await root.fetch("SELECT id, name, org_id FROM loquat.bots")] == [(before["id"], "Ada's shop", "org_1")]
    await tenants.drop(project)


async def test_memories_of_a_contact_follow_it_into_another_whose_own_stay_and_are_forgotten_in_batches(
    desk: Desk, project: Project
) -> None:
    (ada, _), (bob, _) = await opened(desk, "user_id:ada"), await opened(desk, "user_id:bob")
    bot, root = await project.login("bot"), await project.root()
    hour = timedelta(hours=1)
    for event, key, value, ttl in (
        (ada, "a", 1, None),
        (ada, "both", 1, None),
        (ada, "late", 1, None),
        (bob, "both", 2, None),
        (bob, "late", 2, hour),
    ):
        await bot.execute(SET, event, True, key, value, ttl)
    await bot.execute(SET, ada, False, "everybody's", 3, None)
    await root.execute(LATER, hour)
    ids = {r["user"]: r["id"] for r in await root.fetch("SELECT value AS user, contact_id AS id FROM loquat.addresses")}
    await root.execute("SELECT loquat.merge_memories($1, $2)", ids["ada"], ids["bob"])
    kept = await root.fetch("SELECT key, value FROM loquat.bot_memories WHERE contact_id = $1 ORDER BY key", ids["bob"])
    assert [tuple(r) for r in kept] == [("a", 1), ("both", 2), ("late", 1)]
    assert [await root.fetchval("SELECT loquat.forget_memories($1, 2)", [ids["ada"], ids["bob"]]) for _ in range(3)] == [2, 1, 0]
    assert [r["key"] for r in await root.fetch("SELECT key FROM loquat.bot_memories")] == ["everybody's"]


@pytest.mark.promise("P4")
async def test_a_commit_that_notes_something_waits_for_its_contact_before_it_holds_its_conversation(desk: Desk, project: Project) -> None:
    event, version = await opened(desk)
    holder, watcher, waiter = await project.root(), await project.root(), await project.service("bot-runner")
    result = {"contact": {"name": "Ada"}}
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM public.contacts FOR UPDATE")
    commit = asyncio.create_task(waiter.execute("SELECT loquat.commit_run($1, $2, $3)", event, version, result))
    await until(lambda: watcher.fetchval(WAITING), "the commit waits for the contact", 5)
    await holder.execute("SELECT FROM public.conversations FOR UPDATE NOWAIT")  # the order of all who lock both
    await holder.execute("COMMIT")
    with suppress(asyncpg.LockNotAvailableError):  # a slow machine: it has given up after half a second
        await commit
    assert (await desk.commit({"id": str(event)}, version, result))["status"] in {"committed", "done"}
    assert await watcher.fetchval("SELECT name FROM public.contacts") == "Ada"
